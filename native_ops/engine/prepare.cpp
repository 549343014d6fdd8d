// What happens before the first run: a kernel and prepared weights for every layer.

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <tuple>

#include "engine.h"
#include "stopwatch.h"

namespace mbq {
namespace {

size_t align(size_t bytes) { return (bytes + 63) / 64 * 64; }

// The fastest kernels that were measured in this process.
struct Choices {
  using Key = std::tuple<const LayerKernels*, std::vector<int>, uint32_t, uint32_t, int>;
  std::mutex mutex;
  std::map<Key, const ConvKernel*> fastest;
};

Choices& choices() {
  static Choices* const state = new Choices;
  return *state;
}

// Writing this much leaves little of a layer in the caches of one core, as a network's other layers
// do.
constexpr size_t kEvictedBytes = size_t{4} << 20;
// Prepared weights of a level that are more than this do not stay in the caches of one core from
// frame to frame, and what they share with others a camera's other work takes. Kernels that need so
// many are measured with weights from memory.
constexpr size_t kCachedBytes = size_t{4} << 20;

// Takes bytes out of all caches.
void flush(const AlignedMemory& memory) {
  constexpr size_t kLine = 64;
  for (size_t i = 0; i < memory.size(); i += kLine) {
#if defined(__x86_64__)
    __builtin_ia32_clflush(memory.data() + i);
#elif defined(__aarch64__)
    asm volatile("dc civac, %0" : : "r"(memory.data() + i) : "memory");
#endif
  }
}
}  // namespace

void Engine::prepare(const RunContext& context) {
  scratch_offset_ = align(plan_.arena_bytes);
  reservation_.reset();
  for (size_t i = 0; i < steps_.size(); ++i) {
    const LayerKind kind = plan_.layers[i].kind;
    if (kind == LayerKind::kConv || kind == LayerKind::kDepthwise) prepare_conv(context, i);
    if (kind == LayerKind::kStem) prepare_stem(context, i);
    if (kind == LayerKind::kHead) {
      const PlanValue& stream = plan_.values[plan_.lists[plan_.layers[i].first_input]];
      steps_[i].scratch = 2 * stream.channels * sizeof(float);
    }
  }
  size_t scratch = 0;
  for (const Step& step : steps_) scratch = std::max(scratch, step.scratch);
  workspace_bytes_ = scratch_offset_ + align(scratch);
  reservation_ = Workspace::reserve(workspace_bytes_);
  prepared_for_ = context;
  prepared_threads_ = context.parallel->threads;
}

PreparedWeights Engine::weights_for(const PlanLayer& layer, const ConvKernel& kernel) const {
  const ConvShape shape = plan_.shape(layer);
  const size_t bytes = kernel.prepared_bytes(shape);
  if (bytes == 0) return nullptr;
  std::string name = plan_.keys[layer.weight] + " " + kernel.name;
  for (const int number : {shape.height, shape.width, shape.stride, shape.pad}) {
    name += " " + std::to_string(number);
  }
  const uint8_t* const from = payload(layer);
  return prepared_weights(name, bytes, [&](void* to) { kernel.prepare(shape, from, to); });
}

void Engine::prepare_conv(const RunContext& context, size_t index) {
  const PlanLayer& layer = plan_.layers[index];
  const ConvShape shape = plan_.shape(layer);
  const auto* list =
      layer.kind == LayerKind::kConv ? context.kernels->conv : context.kernels->depthwise;
  std::vector<Candidate> candidates;
  uint32_t supporting = 0, large = 0;
  for (int i = 0; list[i] != nullptr; ++i) {
    if (!list[i]->supports(shape, layer.highest)) continue;
    if (context.low_memory && list[i]->prepared_bytes(shape) > constants_[layer.weight].size) {
      continue;
    }
    const bool cached = total_prepared(*list[i]) <= kCachedBytes;
    candidates.push_back({list[i], cached});
    supporting |= 1u << i;
    if (!cached) large |= 1u << i;
  }
  if (candidates.empty()) throw std::runtime_error("no kernel runs a layer of the level");
  const ConvKernel* fastest = candidates.front().kernel;
  if (candidates.size() > 1) {
    const Choices::Key key{
        context.kernels,
        {static_cast<int>(layer.kind), shape.height, shape.width, shape.inputs, shape.outputs,
         shape.kernel_height, shape.kernel_width, shape.stride, shape.pad, layer.direct()},
        supporting,
        large,
        context.parallel->threads};
    Choices& known = choices();
    const std::lock_guard lock(known.mutex);
    const auto found = known.fastest.find(key);
    if (found != known.fastest.end()) {
      fastest = found->second;
    } else {
      fastest = fastest_of(context, index, candidates);
      known.fastest[key] = fastest;
    }
  }
  Step& step = steps_[index];
  step.conv = fastest;
  step.weights = weights_for(layer, *fastest);
  step.scratch = fastest->scratch_bytes(shape, context.parallel->threads);
}

// Bytes if every layer of the level that a kernel supports used it.
size_t Engine::total_prepared(const ConvKernel& kernel) const {
  size_t bytes = 0;
  for (const PlanLayer& layer : plan_.layers) {
    if (layer.kind != LayerKind::kConv && layer.kind != LayerKind::kDepthwise) continue;
    const ConvShape shape = plan_.shape(layer);
    if (kernel.supports(shape, layer.highest)) bytes += kernel.prepared_bytes(shape);
  }
  return bytes;
}

// Candidates take turns, so that another program that slows the machine slows them all, and each
// counts with its shortest time: what disturbs only adds. The arena holds whatever it holds, since
// no kernel's time depends on its data.
const ConvKernel* Engine::fastest_of(const RunContext& context, size_t index,
                                     const std::vector<Candidate>& candidates) const {
  constexpr int kRounds = 12;
  constexpr double kEnough = 60000;  // microseconds
  const PlanLayer& layer = plan_.layers[index];
  const ConvShape shape = plan_.shape(layer);
  std::vector<Step> steps;
  size_t scratch = 0;
  for (const auto& [kernel, cached] : candidates) {
    steps.push_back({kernel, nullptr, weights_for(layer, *kernel), 0});
    scratch = std::max(scratch, kernel->scratch_bytes(shape, context.parallel->threads));
  }
  const Workspace workspace(scratch_offset_ + align(scratch));
  const AlignedMemory other(kEvictedBytes);
  std::vector<double> least(candidates.size(), INFINITY);
  const Stopwatch all;
  for (int round = 0; round < kRounds && (round < 2 || all.microseconds() < kEnough); ++round) {
    for (size_t i = 0; i < candidates.size(); ++i) {
      std::memset(other.data(), round, other.size());
      if (!candidates[i].cached && steps[i].weights != nullptr) flush(*steps[i].weights);
      const Stopwatch one;
      run_layer(context, layer, steps[i], workspace.data(), nullptr, nullptr);
      least[i] = std::min(least[i], one.microseconds());
    }
  }
  return candidates[std::min_element(least.begin(), least.end()) - least.begin()].kernel;
}

void Engine::prepare_stem(const RunContext& context, size_t index) {
  const PlanLayer& layer = plan_.layers[index];
  const ConvShape shape = plan_.shape(layer);
  Step& step = steps_[index];
  for (int i = 0; context.kernels->stem[i] != nullptr; ++i) {
    const StemKernel& kernel = *context.kernels->stem[i];
    if (!kernel.supports(shape)) continue;
    step.stem = &kernel;
    step.scratch = kernel.scratch_bytes(shape, context.parallel->threads);
    const size_t bytes = kernel.prepared_bytes(shape);
    if (bytes != 0) {
      const StemWeights weights = stem_weights(layer);
      step.weights = prepared_weights(plan_.keys[layer.weight] + plan_.keys[layer.second] +
                                          kernel.name + std::to_string(shape.width),
                                      bytes, [&](void* to) { kernel.prepare(shape, weights, to); });
    }
    return;
  }
  throw std::runtime_error("no kernel runs the stem of the level");
}
}  // namespace mbq
