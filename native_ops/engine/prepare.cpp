// What happens before the first run: a kernel and prepared weights for every layer.

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <stdexcept>
#include <tuple>

#include "../kernels/flush.h"
#include "engine.h"

namespace mbq {
namespace {

size_t align(size_t bytes) { return (bytes + 63) / 64 * 64; }

// The fastest kernels that were measured in this process.
struct Choices {
  using Key = std::tuple<const LayerKernels*, std::vector<int>, uint32_t, uint32_t, int>;
  std::mutex mutex;
  std::map<Key, const ConvKernel*> fastest;

  // Whether a level's branches had better run side by side; by the keys of its weights.
  using Level = std::tuple<const LayerKernels*, std::vector<std::string>, int, bool>;
  std::map<Level, bool> beside;
};

Choices& choices() {
  static Choices* const state = new Choices;
  return *state;
}

// How often candidates are measured: so many rounds, or as many as so many microseconds hold.
constexpr int kRounds = 12;
constexpr double kEnough = 60000;
// Microseconds for which whole runs are measured, two of each way at least.
constexpr double kEnoughRuns = 30000;
// Writing this much leaves little of a layer in the caches of one core, as a network's other layers
// do; those of a small network write less. Where memory is scarce the level's constants are read.
constexpr size_t kEvictedBytes = size_t{4} << 20;
// Prepared weights of a level that are more than this do not stay in the caches of one core from
// frame to frame, and what they share with others a camera's other work takes. Kernels that need so
// many are measured with weights from memory.
constexpr size_t kCachedBytes = size_t{4} << 20;

enum class Split { kFastest, kTiles, kBranches };

// How EDGE_NATIVE_SPLIT wants threads to share a level, for tests and comparisons.
Split forced_split() {
  const char* const wanted = std::getenv("EDGE_NATIVE_SPLIT");
  if (wanted == nullptr || *wanted == '\0') return Split::kFastest;
  if (std::strcmp(wanted, "tiles") == 0) return Split::kTiles;
  if (std::strcmp(wanted, "branches") == 0) return Split::kBranches;
  throw std::runtime_error("EDGE_NATIVE_SPLIT is neither tiles nor branches");
}

}  // namespace

void Engine::prepare(const RunContext& context) {
  prepared_for_ = {};
  const Steps before = std::move(steps_);  // whose weights may be wanted again
  lanes_.reset();
  reservation_.reset();
  use_places(planned_);
  const Split forced = forced_split();
  std::optional<Lanes> lanes;
  if (forced != Split::kTiles) lanes = side_by_side(plan_, context.parallel->threads);
  std::optional<bool> better = false;
  if (lanes) better = forced == Split::kBranches ? true : known_beside(context);
  Steps tiled, beside;
  if (better != true) tiled = prepare_layers(context, nullptr);
  if (better != false) beside = prepare_layers(context, &*lanes);
  if (!better) better = measure_beside(context, tiled, beside, *lanes);
  if (*better) {
    lanes_ = std::move(lanes);
    use_places(lanes_->places);
  }
  steps_ = std::move(*better ? beside : tiled);
  workspace_bytes_ = bytes_for(steps_, lanes_ ? &*lanes_ : nullptr);
  reservation_ = Workspace::reserve(workspace_bytes_);
  prepared_for_ = context;
  prepared_threads_ = context.parallel->threads;
}

Engine::Steps Engine::prepare_layers(const RunContext& context, Lanes* lanes) const {
  const RunContext one_thread{context.kernels, &serial(), context.low_memory};
  Steps steps;
  for (int i = 0; i < static_cast<int>(plan_.layers.size()); ++i) {
    const bool alone = lanes != nullptr && lanes->begin() <= i && i < lanes->end();
    steps.push_back(prepare_layer(alone ? one_thread : context, plan_.layers[i]));
    steps.back().alone = alone;
    if (alone) lanes->scratch = std::max(lanes->scratch, align(steps.back().scratch));
  }
  return steps;
}

size_t Engine::scratch_offset() const { return align(plan_.arena_bytes); }

// Of a workspace, with values in the places that hold now.
size_t Engine::bytes_for(const Steps& steps, const Lanes* lanes) const {
  size_t scratch = lanes != nullptr ? lanes->lanes.size() * lanes->scratch : 0;
  for (const Step& step : steps) scratch = std::max(scratch, align(step.scratch));
  return scratch_offset() + scratch;
}

void Engine::use_places(const Places& places) {
  for (size_t i = 0; i < plan_.values.size(); ++i) plan_.values[i].offset = places.offsets[i];
  plan_.arena_bytes = places.bytes;
}

std::optional<bool> Engine::known_beside(const RunContext& context) const {
  Choices& known = choices();
  const std::lock_guard lock(known.mutex);
  const auto found = known.beside.find(
      {context.kernels, plan_.keys, context.parallel->threads, context.low_memory});
  return found == known.beside.end() ? std::nullopt : std::optional(found->second);
}

// Whole runs take turns, as kernels do below. Afterwards values are in the lanes' places.
bool Engine::measure_beside(const RunContext& context, const Steps& tiled, const Steps& beside,
                            const Lanes& lanes) {
  use_places(lanes.places);
  const Workspace workspace(std::max(bytes_for(tiled, nullptr), bytes_for(beside, &lanes)),
                            context.low_memory);
  const std::vector<uint8_t> image(image_bytes());
  std::vector<float> logits(classes());
  const Buffers buffers{workspace.data(), workspace.data() + scratch_offset(), image.data(),
                        logits.data()};
  double least[2] = {INFINITY, INFINITY};
  const Stopwatch all;
  for (int round = 0; round < 2 || all.microseconds() < kEnoughRuns; ++round) {
    for (const bool lane : {false, true}) {
      const Stopwatch one;
      run_all({context, lane ? beside : tiled, buffers, nullptr, one}, lane ? &lanes : nullptr);
      least[lane] = std::min(least[lane], one.microseconds());
    }
  }
  const bool better = least[true] < least[false];
  if (!better) use_places(planned_);
  Choices& known = choices();
  const std::lock_guard lock(known.mutex);
  known.beside[{context.kernels, plan_.keys, context.parallel->threads, context.low_memory}] =
      better;
  return better;
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

Engine::Step Engine::prepare_layer(const RunContext& context, const PlanLayer& layer) const {
  switch (layer.kind) {
    case LayerKind::kStem:
      return prepare_stem(context, layer);
    case LayerKind::kConv:
    case LayerKind::kDepthwise:
      return prepare_conv(context, layer);
    case LayerKind::kHead: {
      Step step;
      const PlanValue& stream = plan_.values[plan_.lists[layer.first_input]];
      step.scratch = 2 * stream.channels * sizeof(float);
      return step;
    }
    case LayerKind::kFork:
    case LayerKind::kPoolCodes:
      break;
  }
  return {};
}

Engine::Step Engine::prepare_conv(const RunContext& context, const PlanLayer& layer) const {
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
  Step step;
  step.conv = candidates.front().kernel;
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
      step.conv = found->second;
    } else {
      step.conv = fastest_of(context, layer, candidates);
      known.fastest[key] = step.conv;
    }
  }
  step.weights = weights_for(layer, *step.conv);
  step.scratch = step.conv->scratch_bytes(shape, context.parallel->threads);
  return step;
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

// As much of them as empties the caches of the rest.
void Engine::read_constants() const {
  constexpr size_t kLine = 64;
  size_t lines = kEvictedBytes / kLine;
  for (const auto& [data, size] : constants_) {
    for (size_t i = 0; i < size && lines > 0; i += kLine, --lines) {
      static_cast<void>(*static_cast<const volatile uint8_t*>(data + i));
    }
  }
}

// Candidates take turns, so that another program that slows the machine slows them all, and each
// counts with its shortest time: what disturbs only adds. The arena holds whatever it holds, since
// no kernel's time depends on its data.
const ConvKernel* Engine::fastest_of(const RunContext& context, const PlanLayer& layer,
                                     const std::vector<Candidate>& candidates) const {
  const ConvShape shape = plan_.shape(layer);
  Steps steps;
  size_t scratch = 0, used = 0;
  for (const auto& [kernel, cached] : candidates) {
    Step& step = steps.emplace_back();
    step.conv = kernel;
    step.weights = weights_for(layer, *kernel);
    scratch = std::max(scratch, kernel->scratch_bytes(shape, context.parallel->threads));
    used = std::max(used, plan_.arena_bytes + total_prepared(*kernel));
  }
  const Workspace workspace(scratch_offset() + align(scratch), context.low_memory);
  const Buffers buffers{workspace.data(), workspace.data() + scratch_offset(), nullptr, nullptr};
  const AlignedMemory other(context.low_memory ? 0 : std::min(used, kEvictedBytes));
  std::vector<double> least(candidates.size(), INFINITY);
  const Stopwatch all;
  for (int round = 0; round < kRounds && (round < 2 || all.microseconds() < kEnough); ++round) {
    for (size_t i = 0; i < candidates.size(); ++i) {
      if (context.low_memory) {
        read_constants();
      } else {
        std::memset(other.data(), round, other.size());
      }
      if (!candidates[i].cached && steps[i].weights != nullptr) {
        flush(steps[i].weights->data(), steps[i].weights->size());
      }
      const Stopwatch one;
      run_layer(context, layer, steps[i], buffers);
      least[i] = std::min(least[i], one.microseconds());
    }
  }
  return candidates[std::min_element(least.begin(), least.end()) - least.begin()].kernel;
}

// The layer behind a stem, if it is a max pool and alone reads what the stem writes.
const PlanLayer* Engine::only_reader_pools(const PlanLayer& stem) const {
  if (stem.code_outputs != 0 || !stem.relu() || &stem == &plan_.layers.back()) return nullptr;
  const PlanLayer& next = *(&stem + 1);
  const auto reads = [&](const PlanLayer& layer) {
    bool found = false;
    for_reads(plan_, layer, [&](int value) { found |= value == stem.stream; });
    return found;
  };
  const bool pools =
      next.kind == LayerKind::kFork && next.branch == 0 && next.pool_kernel > 0 && reads(next);
  return pools && std::count_if(plan_.layers.begin(), plan_.layers.end(), reads) == 1 ? &next
                                                                                      : nullptr;
}

Engine::Step Engine::prepare_stem(const RunContext& context, const PlanLayer& layer) const {
  const ConvShape shape = plan_.shape(layer);
  const StemWeights weights = stem_weights(layer);
  for (int i = 0; context.kernels->stem[i] != nullptr; ++i) {
    const StemKernel& kernel = *context.kernels->stem[i];
    if (!kernel.supports(shape, weights)) continue;
    Step step;
    step.stem = &kernel;
    step.scratch = kernel.scratch_bytes(shape, context.parallel->threads);
    step.pool = kernel.pools != nullptr ? only_reader_pools(layer) : nullptr;
    if (step.pool != nullptr) {
      const PoolShape pool = plan_.pool(*step.pool);
      if (kernel.pools(shape, pool)) {
        step.scratch = kernel.pooled_scratch_bytes(shape, pool, context.parallel->threads);
      } else {
        step.pool = nullptr;
      }
    }
    const size_t bytes = kernel.prepared_bytes(shape);
    if (bytes != 0) {
      step.weights = prepared_weights(plan_.keys[layer.weight] + plan_.keys[layer.second] +
                                          kernel.name + std::to_string(shape.width),
                                      bytes, [&](void* to) { kernel.prepare(shape, weights, to); });
    }
    return step;
  }
  throw std::runtime_error("no kernel runs the stem of the level");
}
}  // namespace mbq
