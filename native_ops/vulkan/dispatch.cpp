#include "dispatch.h"

#include <algorithm>
#include <cstring>

#include "../executorch/packed_weight.h"
#include "transform.h"

namespace mbq::vulkan {
namespace {

constexpr uint32_t kNowhere = ~0u, kRelu = 1, kDirect = 2;

uint32_t words(size_t bytes) { return static_cast<uint32_t>(bytes / 4); }

// Of codes without their border, four to a word, or of a stream.
uint64_t content_bytes(const PlanValue& value) {
  const uint64_t pixels = uint64_t(value.height) * value.width;
  return pixels * (value.kind == ValueKind::kCodes ? value.pixel() : value.channels * 4u);
}

Range range_of(const PlanValue& value) {
  size_t bytes = content_bytes(value);
  if (value.kind == ValueKind::kCodes) {
    bytes = (value.height + 2 * static_cast<size_t>(value.border)) * value.row();
  }
  return {value.offset, value.offset + bytes};
}

size_t origin(const PlanValue& codes) {
  return codes.offset + codes.border * (codes.row() + codes.pixel());
}

std::string size_text(const PlanValue& value) {
  return std::to_string(value.height) + "x" + std::to_string(value.width) + "x" +
         std::to_string(value.channels);
}

// The invocations of a workgroup, and what each computes.
struct Tile {
  uint32_t local[2];
  uint32_t pixels, quads;
};

class Maker {
 public:
  Maker(const Plan& plan, const Shape& shape) : plan_(plan), shape_(shape) {}

  std::vector<Dispatch> make() {
    for (size_t i = 0; i < plan_.layers.size(); ++i) {
      const PlanLayer& layer = plan_.layers[i];
      layer_ = static_cast<int>(i);
      if (layer.kind == LayerKind::kHead) {
        head(layer);
      } else {
        add_layer(layer, shape_.variants[i]);
      }
    }
    return std::move(dispatches_);
  }

  Dispatch make_one(int layer, const Variant& variant) {
    layer_ = layer;
    add_layer(plan_.layers[layer], variant);
    return std::move(dispatches_.front());
  }

 private:
  const PlanValue& value(int index) const { return plan_.values[index]; }

  // Workgroups of 64 invocations: whole subgroups of every width that there is.
  Tile tile_of(const PlanLayer& layer, const Variant& variant) const {
    const uint32_t quads = divide_up(layer.outputs, 4);
    Tile tile{{8, 8}, 1, 1};
    if (layer.kind == LayerKind::kStem) tile.pixels = keeps_busy(plan_, layer, 4, 1) ? 4 : 2;
    if (layer.kind == LayerKind::kConv) {
      tile.pixels = variant.pixels;
      tile.quads = variant.quads;
      // Taps are neighbours in x, tiles in y; see shaders/f2x2.comp.
      if (variant.algorithm == Algorithm::kWinograd) return {{16, 4}, tile.pixels, tile.quads};
    }
    while (tile.local[0] > 1 && divide_up(quads, tile.quads) <= tile.local[0] / 2) {
      tile.local[0] /= 2;
      tile.local[1] *= 2;
    }
    return tile;
  }

  LayerNumbers numbers_of(const PlanLayer& layer) const {
    const PlanValue& input = value(layer.input);
    LayerNumbers numbers{};
    numbers.height = input.height;
    numbers.width = input.width;
    numbers.channels = input.channels;
    if (input.kind == ValueKind::kCodes) {
      numbers.input_origin = words(origin(input));
      numbers.input_row = words(input.row());
      numbers.input_pixel = words(input.pixel());
    } else {
      numbers.input_origin = words(input.kind == ValueKind::kImage ? shape_.image : input.offset);
    }
    const PlanValue& output = value(layer.stream != kNone ? layer.stream : layer.codes[0].value);
    numbers.out_height = output.height;
    numbers.out_width = output.width;
    numbers.outputs = layer.outputs;
    numbers.pad = layer.kernel_height > 0 ? layer.pad : layer.pool_pad;
    numbers.residual = layer.residual == kNone ? kNowhere : words(value(layer.residual).offset);
    numbers.stream = layer.stream == kNone ? kNowhere : words(value(layer.stream).offset);
    numbers.affine = layer.affine;
    numbers.flags = (layer.relu() ? kRelu : 0) | (layer.direct() ? kDirect : 0);
    numbers.code_outputs = layer.code_outputs;
    numbers.pool_kernel = layer.pool_kernel;
    numbers.pool_stride = layer.pool_stride;
    numbers.highest = layer.highest;
    numbers.pad_value = shape_.pad_value[layer_];
    for (int i = 0; i < layer.code_outputs; ++i) {
      const PlanCodes& codes = layer.codes[i];
      const PlanValue& to = value(codes.value);
      numbers.codes[i] = {
          words(origin(to)), words(to.row()),
          words(to.pixel()), codes.scale,
          codes.offset,      static_cast<uint32_t>(codes.lowest | codes.highest << 8)};
    }
    return numbers;
  }

  void add_layer(const PlanLayer& layer, const Variant& variant) {
    const LayerNumbers numbers = numbers_of(layer);
    const Tile tile = tile_of(layer, variant);
    const bool winograd =
        layer.kind == LayerKind::kConv && variant.algorithm == Algorithm::kWinograd;
    const auto number = [](int n) { return static_cast<uint32_t>(n); };
    Dispatch made{};
    made.constants = {tile.local[0], tile.local[1]};
    made.weight = layer.weight;
    made.layer = layer_;
    const char* name = "";
    switch (layer.kind) {
      case LayerKind::kStem:
        made.shader = Shader::kStem;
        made.constants.insert(made.constants.end(),
                              {tile.pixels, number(layer.kernel_height), number(layer.kernel_width),
                               number(layer.stride)});
        name = "stem";
        break;
      case LayerKind::kConv:
        if (winograd) {
          made.shader = shape_.packed_product ? Shader::kWinogradPacked : Shader::kWinograd;
          made.constants.insert(made.constants.end(), {variant.tiles(), tile.quads});
          made.transformed = true;
        } else {
          made.shader = shape_.packed_product ? Shader::kConvPacked : Shader::kConv;
          made.constants.insert(made.constants.end(),
                                {tile.pixels, tile.quads, number(layer.kernel_height),
                                 number(layer.kernel_width), number(layer.stride)});
        }
        made.size.tile = variant.tile();
        made.size.chosen = shape_.chosen[layer_];
        name = "conv";
        break;
      case LayerKind::kDepthwise:
        made.shader = Shader::kDepthwise;
        made.constants.insert(made.constants.end(),
                              {number(layer.kernel_height), number(layer.stride)});
        name = "depthwise";
        break;
      case LayerKind::kFork:
        made.shader = Shader::kStream;
        name = "stream";
        break;
      case LayerKind::kPoolCodes:
      case LayerKind::kHead:
        made.shader = Shader::kPool;
        name = "pool";
        break;
    }
    const uint32_t across =
        divide_up(divide_up(numbers.outputs, 4), tile.quads) * (winograd ? tile.local[0] : 1);
    const uint32_t down = winograd ? divide_up(tiles_of(plan_, layer), variant.tiles())
                                   : divide_up(numbers.out_height * numbers.out_width, tile.pixels);
    made.groups[0] = divide_up(across, tile.local[0]);
    made.groups[1] = divide_up(down, tile.local[1]);
    const PlanValue& input = value(layer.input);
    made.size.layer = name;
    if (layer.kernel_height > 0) {
      made.size.layer += std::to_string(layer.kernel_height) + "x" +
                         std::to_string(layer.kernel_width) +
                         (layer.stride > 1 ? "/" + std::to_string(layer.stride) : "");
    }
    made.size.layer += " " + size_text(input) + " -> " + std::to_string(layer.outputs);
    measure(layer, numbers, tile, uint64_t(across) * down, made);
    add(std::move(made), numbers);
  }

  // Bytes that the shader asks for, and the least.
  void measure(const PlanLayer& layer, const LayerNumbers& numbers, const Tile& tile,
               uint64_t invocations, Dispatch& made) const {
    const PlanValue& input = value(layer.input);
    const uint64_t pixels = uint64_t(numbers.out_height) * numbers.out_width;
    const uint64_t quads = divide_up(numbers.outputs, 4);
    const uint64_t taps = uint64_t(layer.kernel_height) * layer.kernel_width;
    uint64_t weight_bytes = 0;
    DispatchSize& size = made.size;
    switch (layer.kind) {
      case LayerKind::kStem:
        size.multiplications = pixels * taps * numbers.channels * numbers.outputs;
        size.read_bytes = invocations * taps * (tile.pixels * 8 + numbers.channels * 8);
        weight_bytes = taps * numbers.channels * quads * 8;
        break;
      case LayerKind::kConv: {
        const uint64_t words = divide_up(numbers.channels, 4);
        const uint64_t products = uint64_t{numbers.channels} * numbers.outputs;
        if (made.transformed) {
          // Four codes for each tile and a vector of weights for each quad; behind them the sums.
          size.read_bytes =
              invocations * (words * (tile.pixels + tile.quads * 4) + tile.quads * 4) * 4;
          size.multiplications = 16 * uint64_t{tiles_of(plan_, layer)} * products;
          weight_bytes = transformed_bytes(plan_.shape(layer));
        } else {
          size.read_bytes = invocations * taps * words * (tile.pixels + tile.quads) * 4;
          size.multiplications = pixels * taps * products;
          weight_bytes = packed_payload_bytes(plan_.shape(layer));
        }
        break;
      }
      case LayerKind::kDepthwise:
        size.multiplications = pixels * taps * numbers.outputs;
        size.read_bytes = invocations * (taps + divide_up(taps, 4)) * 4;
        weight_bytes = depthwise_payload_bytes(plan_.shape(layer));
        break;
      default: {
        const uint64_t window =
            layer.pool_kernel > 0 ? uint64_t(layer.pool_kernel) * layer.pool_kernel : 1;
        size.read_bytes = invocations * window * (input.kind == ValueKind::kCodes ? 4 : 16);
        break;
      }
    }
    size.invocations =
        uint64_t(made.groups[0]) * made.constants[0] * made.groups[1] * made.constants[1];
    uint64_t beside = 0;  // what the finish reads
    if (layer.affine != kNone) beside += 8;
    if (layer.residual != kNone) beside += 4;
    size.read_bytes += pixels * numbers.outputs * beside;
    size.least_bytes = weight_bytes + (layer.affine != kNone ? 8u * numbers.outputs : 0);
    const bool image = input.kind == ValueKind::kImage;
    size.least_bytes +=
        image ? uint64_t(input.height) * input.width * input.channels : content_bytes(input);
    if (!image) made.reads.push_back(range_of(input));
    if (layer.residual != kNone) {
      made.reads.push_back(range_of(value(layer.residual)));
      size.least_bytes += content_bytes(value(layer.residual));
    }
    const auto written = [&](int index) {
      made.writes.push_back(range_of(value(index)));
      size.written_bytes += content_bytes(value(index));
    };
    if (layer.stream != kNone) written(layer.stream);
    for (int i = 0; i < layer.code_outputs; ++i) written(layer.codes[i].value);
    size.least_bytes += size.written_bytes;
  }

  void head(const PlanLayer& layer) {
    const PlanValue& first = value(plan_.lists[layer.first_input]);
    HeadNumbers numbers{};
    Dispatch average{}, classify{};
    average.layer = classify.layer = layer_;
    average.weight = kNone;
    classify.weight = layer.weight;
    for (int i = 0; i < layer.inputs; ++i) {
      const PlanValue& stream = value(plan_.lists[layer.first_input + i]);
      numbers.streams[i] = words(stream.offset);
      average.reads.push_back(range_of(stream));
      average.size.read_bytes += content_bytes(stream);
    }
    numbers.count = layer.inputs;
    numbers.pixels = first.height * first.width;
    numbers.channels = first.channels;
    numbers.classes = layer.outputs;
    numbers.pooled = words(shape_.pooled);
    numbers.bias = static_cast<uint32_t>(shape_.bias[layer_]);
    // Here, since a GPU's division may round otherwise.
    numbers.by_pixels = 1.0f / static_cast<float>(numbers.pixels);
    numbers.by_streams = layer.mean() ? 1.0f / static_cast<float>(layer.inputs) : 1.0f;

    const uint64_t channels = numbers.channels, classes = numbers.classes;
    const Range pooled{shape_.pooled, shape_.pooled + channels * 4};
    average.shader = Shader::kAverage;
    average.constants = classify.constants = {64, 1};
    average.groups[0] = divide_up(channels, 64);
    average.groups[1] = classify.groups[1] = 1;
    average.writes = {pooled};
    average.size.layer = "average " + std::to_string(layer.inputs) + " of " + size_text(first);
    average.size.invocations = average.groups[0] * 64u;
    average.size.written_bytes = channels * 4;
    average.size.least_bytes = average.size.read_bytes + average.size.written_bytes;
    classify.shader = Shader::kClassify;
    classify.groups[0] = divide_up(classes, 64);
    classify.reads = {pooled};
    classify.size.layer = "classify " + std::to_string(channels) + " -> " + std::to_string(classes);
    classify.size.invocations = classify.groups[0] * 64u;
    classify.size.multiplications = classes * channels;
    classify.size.read_bytes = classes * channels * 8 + classes * 4;
    classify.size.written_bytes = classes * 4;
    classify.size.least_bytes = (classes * channels + channels + 2 * classes) * 4;
    add(std::move(average), numbers);
    add(std::move(classify), numbers);
  }

  template <typename Numbers>
  void add(Dispatch made, const Numbers& numbers) {
    const auto& most = shape_.limits->maxComputeWorkGroupCount;
    if (made.groups[0] > most[0] || made.groups[1] > most[1]) {
      throw DeviceError("Vulkan: the layer " + made.size.layer +
                        " takes more workgroups than the device has");
    }
    made.size.shader = shader_code()[static_cast<size_t>(made.shader)].name;
    made.numbers.resize(sizeof numbers);
    std::memcpy(made.numbers.data(), &numbers, sizeof numbers);
    dispatches_.push_back(std::move(made));
  }

  const Plan& plan_;
  const Shape& shape_;
  int layer_ = 0;
  std::vector<Dispatch> dispatches_;
};

}  // namespace

std::vector<Dispatch> dispatches_of(const Plan& plan, const Shape& shape) {
  return Maker(plan, shape).make();
}

Dispatch dispatch_of(const Plan& plan, const Shape& shape, int layer, const Variant& variant) {
  return Maker(plan, shape).make_one(layer, variant);
}

}  // namespace mbq::vulkan
