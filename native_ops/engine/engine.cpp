#include "engine.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <stdexcept>

#include "../executorch/packed_weight.h"

namespace mbq {
namespace {

void require(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(std::string("a constant of the level ") + what);
}

// Codes outside the image, and between a pixel's channels and the next pixel.
void clear_border(const CodeImage& image, int height, int width, int channels) {
  const size_t margin = image.border * image.pixel;
  uint8_t* const first = image.origin - image.border * image.row - margin;
  if (image.pixel != static_cast<size_t>(channels)) {
    std::memset(first, 0, (height + 2 * static_cast<size_t>(image.border)) * image.row);
    return;
  }
  if (image.border == 0) return;
  std::memset(first, 0, image.border * image.row + margin);
  // The right margin of a row and the left one of the next are neighbours.
  uint8_t* side = image.origin + width * image.pixel;
  for (int y = 0; y + 1 < height; ++y, side += image.row) std::memset(side, 0, 2 * margin);
  std::memset(side, 0, margin + image.border * image.row);
}

const char* kind_name(LayerKind kind) {
  switch (kind) {
    case LayerKind::kStem:
      return "stem";
    case LayerKind::kConv:
      return "conv";
    case LayerKind::kDepthwise:
      return "depthwise";
    case LayerKind::kFork:
      return "stream";
    case LayerKind::kPoolCodes:
      return "pool";
    case LayerKind::kHead:
      return "head";
  }
  return "";
}

}  // namespace

Engine::Engine(Plan plan, std::vector<Constant> constants)
    : plan_(std::move(plan)), constants_(std::move(constants)) {
  for (const PlanLayer& layer : plan_.layers) check_weights(layer);
  for (const PlanValue& value : plan_.values) planned_.offsets.push_back(value.offset);
  planned_.bytes = plan_.arena_bytes;
}

void Engine::check_weights(const PlanLayer& layer) const {
  switch (layer.kind) {
    case LayerKind::kConv:
    case LayerKind::kDepthwise: {
      const Constant& packed = constants_[layer.weight];
      const ConvShape wanted = plan_.shape(layer);
      ConvShape shape = wanted;
      const bool depthwise = layer.kind == LayerKind::kDepthwise;
      const char* const wrong = read_packed_header(
          packed.data, packed.size, depthwise ? kPackedDepthwise : kPackedDense, shape);
      require(wrong == nullptr, wrong != nullptr ? wrong : "");
      require(shape.inputs == wanted.inputs && shape.outputs == wanted.outputs &&
                  shape.kernel_height == wanted.kernel_height &&
                  shape.kernel_width == wanted.kernel_width,
              "holds a weight of another shape than its layer");
      break;
    }
    case LayerKind::kStem: {
      const ConvShape shape = plan_.shape(layer);
      const size_t row =
          static_cast<size_t>(shape.kernel_height) * shape.kernel_width * shape.inputs;
      require(constants_[layer.weight].size == shape.outputs * row * sizeof(int16_t) &&
                  constants_[layer.second].size == static_cast<size_t>(shape.inputs),
              "does not fit the stem");
      const auto* weight = reinterpret_cast<const int16_t*>(constants_[layer.weight].data);
      for (int o = 0; o < shape.outputs; ++o, weight += row) {
        int64_t sum = 0;
        for (size_t k = 0; k < row; ++k) sum += std::abs(static_cast<int>(weight[k]));
        require(sum * 255 <= INT32_MAX, "has stem weights whose sums overflow");
      }
      break;
    }
    case LayerKind::kHead: {
      const PlanValue& stream = plan_.values[plan_.lists[layer.first_input]];
      require(constants_[layer.weight].size ==
                      static_cast<size_t>(layer.outputs) * stream.channels * sizeof(float) &&
                  constants_[layer.second].size == layer.outputs * sizeof(float),
              "does not fit the head");
      break;
    }
    case LayerKind::kFork:
    case LayerKind::kPoolCodes:
      break;
  }
}

size_t Engine::image_bytes() const {
  for (const PlanValue& value : plan_.values) {
    if (value.kind == ValueKind::kImage) {
      return static_cast<size_t>(value.height) * value.width * value.channels;
    }
  }
  return 0;
}

void Engine::run(const RunContext& context, const uint8_t* image, float* logits,
                 std::vector<LayerTime>* profile) {
  if (context.kernels != prepared_for_.kernels || context.low_memory != prepared_for_.low_memory ||
      context.parallel->threads > prepared_threads_) {
    prepare(context);
  }
  const Workspace workspace(workspace_bytes_, context.low_memory);
  if (profile != nullptr) profile->assign(plan_.layers.size(), {});
  const Stopwatch watch;
  run_all({context,
           steps_,
           {workspace.data(), workspace.data() + scratch_offset(), image, logits},
           profile != nullptr ? profile->data() : nullptr,
           watch},
          lanes_ ? &*lanes_ : nullptr);
  if (profile != nullptr) {  // a layer that ran with the one before has no entry
    std::erase_if(*profile, [](const LayerTime& time) { return time.layer.empty(); });
  }
}

void Engine::run_all(const Run& run, const Lanes* lanes) const {
  const int count = static_cast<int>(plan_.layers.size());
  if (lanes == nullptr) return run_layers(run, 0, count);
  run_layers(run, 0, lanes->begin());
  struct Job {
    const Engine* engine;
    const Run* run;
    const Lanes* lanes;
  } job{this, &run, lanes};
  const auto task = [](void* context, int, int begin, int end) {
    const Job& job = *static_cast<const Job*>(context);
    for (int i = begin; i < end; ++i) {
      Run lane = *job.run;
      lane.buffers.scratch += i * job.lanes->scratch;
      job.engine->run_layers(lane, job.lanes->lanes[i].begin, job.lanes->lanes[i].end);
    }
  };
  const Parallel& parallel = *run.context.parallel;
  parallel.run(parallel.self, static_cast<int>(lanes->lanes.size()), task, &job);
  run_layers(run, lanes->end(), count);
}

void Engine::run_layers(const Run& run, int begin, int end) const {
  for (int i = begin; i < end; ++i) {
    const PlanLayer& layer = plan_.layers[i];
    const Step& step = run.steps[i];
    if (run.profile == nullptr) {
      run_layer(run.context, layer, step, run.buffers);
    } else {
      const double start = run.watch.microseconds();
      run_layer(run.context, layer, step, run.buffers);
      const double took = run.watch.microseconds() - start;  // before strings are made
      LayerTime& time = run.profile[i] = describe(run.context, layer, step);
      time.start = start;
      time.microseconds = took;
      time.beside = lanes_ && lanes_->begin() <= i && i < lanes_->end();
    }
    if (step.pool != nullptr) ++i;  // has run as well
  }
}

LayerTime Engine::describe(const RunContext& context, const PlanLayer& layer,
                           const Step& step) const {
  LayerTime time{};
  time.branch = layer.branch;
  time.layer = kind_name(layer.kind);
  time.kernel = context.kernels->name;
  time.weight_bytes = step.weights != nullptr ? step.weights->size() : 0;
  time.threads = step.alone ? 1 : context.parallel->threads;
  if (layer.input == kNone) return time;
  const PlanValue& in = plan_.values[layer.input];
  if (layer.kernel_height > 0) {
    const ConvShape shape = plan_.shape(layer);
    time.layer += std::to_string(layer.kernel_height) + "x" + std::to_string(layer.kernel_width) +
                  (layer.stride > 1 ? "/" + std::to_string(layer.stride) : "");
    time.macs = int64_t{shape.out_height()} * shape.out_width() * shape.outputs *
                shape.kernel_height * shape.kernel_width *
                (layer.kind == LayerKind::kDepthwise ? 1 : shape.inputs);
    time.kernel = step.stem != nullptr ? step.stem->name : step.conv->name;
  }
  time.layer += " " + std::to_string(in.height) + "x" + std::to_string(in.width) + "x" +
                std::to_string(in.channels) + " -> " + std::to_string(layer.outputs);
  if (step.pool != nullptr) time.layer += ", pooled";
  return time;
}

CodeImage Engine::code_image(int value, uint8_t* arena) const {
  const PlanValue& codes = plan_.values[value];
  return {arena + codes.offset + codes.border * (codes.row() + codes.pixel()), codes.row(),
          codes.pixel(), codes.border};
}

float* Engine::stream(int value, uint8_t* arena) const {
  return value == kNone ? nullptr : reinterpret_cast<float*>(arena + plan_.values[value].offset);
}

const uint8_t* Engine::payload(const PlanLayer& layer) const {
  return constants_[layer.weight].data + kPackedHeaderBytes;
}

StemWeights Engine::stem_weights(const PlanLayer& layer) const {
  return {reinterpret_cast<const int16_t*>(constants_[layer.weight].data),
          constants_[layer.second].data};
}

LayerOutput Engine::output_of(const PlanLayer& layer, uint8_t* arena) const {
  LayerOutput output{};
  if (layer.affine != kNone) {
    output.scale = plan_.floats.data() + layer.affine;
    output.bias = output.scale + layer.outputs;
  }
  output.direct = layer.direct();
  output.residual = stream(layer.residual, arena);
  output.relu = layer.relu();
  output.stream = stream(layer.stream, arena);
  output.code_outputs = layer.code_outputs;
  for (int i = 0; i < layer.code_outputs; ++i) {
    const PlanCodes& codes = layer.codes[i];
    output.codes[i] = {code_image(codes.value, arena), codes.scale, codes.offset, codes.lowest,
                       codes.highest};
    const PlanValue& value = plan_.values[codes.value];
    clear_border(output.codes[i].image, value.height, value.width, value.channels);
  }
  return output;
}

ConvCall Engine::conv_call(const PlanLayer& layer, const Step& step, const Buffers& buffers) const {
  return {plan_.shape(layer),
          code_image(layer.input, buffers.arena),
          payload(layer),
          step.weights != nullptr ? step.weights->data() : nullptr,
          output_of(layer, buffers.arena),
          buffers.scratch};
}

StreamCall Engine::stream_call(const PlanLayer& layer, uint8_t* arena) const {
  const PlanValue& input = plan_.values[layer.input];
  const LayerOutput output = output_of(layer, arena);
  StreamCall call{};
  call.height = input.height;
  call.width = input.width;
  call.channels = input.channels;
  call.input = stream(layer.input, arena);
  call.pool = plan_.pool(layer);
  call.kept = layer.outputs;
  call.stream = output.stream;
  call.code_outputs = output.code_outputs;
  std::copy_n(output.codes, kMaxCodeOutputs, call.codes);
  return call;
}

void Engine::run_layer(const RunContext& context, const PlanLayer& layer, const Step& step,
                       const Buffers& buffers) const {
  const LayerKernels& kernels = *context.kernels;
  const Parallel& parallel = step.alone ? serial() : *context.parallel;
  uint8_t* const arena = buffers.arena;
  switch (layer.kind) {
    case LayerKind::kStem: {
      const StemCall call{
          plan_.shape(layer),      buffers.image,
          stem_weights(layer),     step.weights != nullptr ? step.weights->data() : nullptr,
          output_of(layer, arena), buffers.scratch};
      if (step.pool == nullptr) return step.stem->run(call, parallel);
      return step.stem->run_pooled(call, stream_call(*step.pool, arena), parallel);
    }
    case LayerKind::kConv:
    case LayerKind::kDepthwise:
      return step.conv->run(conv_call(layer, step, buffers), parallel);
    case LayerKind::kFork:
      return kernels.stream(stream_call(layer, arena), parallel);
    case LayerKind::kPoolCodes: {
      const PoolShape shape = plan_.pool(layer);
      const LayerOutput output = output_of(layer, arena);
      return kernels.pool_codes(shape, code_image(layer.input, arena), output.codes[0].image,
                                parallel);
    }
    case LayerKind::kHead: {
      const float* streams[16];
      for (int i = 0; i < layer.inputs; ++i) {
        streams[i] = stream(plan_.lists[layer.first_input + i], arena);
      }
      const PlanValue& first = plan_.values[plan_.lists[layer.first_input]];
      const HeadCall call{streams,
                          layer.inputs,
                          first.height * first.width,
                          first.channels,
                          reinterpret_cast<const float*>(constants_[layer.weight].data),
                          reinterpret_cast<const float*>(constants_[layer.second].data),
                          layer.outputs,
                          layer.mean(),
                          reinterpret_cast<float*>(buffers.scratch),
                          buffers.logits};
      return kernels.head(call, parallel);
    }
  }
}

}  // namespace mbq
