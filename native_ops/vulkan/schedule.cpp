#include "schedule.h"

#include <algorithm>
#include <numeric>

namespace mbq::vulkan {
namespace {

constexpr size_t kAlignment = 64;

// Values that a layer reads or writes.
template <typename Each>
void for_reads(const Plan& plan, const PlanLayer& layer, const Each& each) {
  if (layer.input != kNone) each(layer.input);
  if (layer.residual != kNone) each(layer.residual);
  for (int i = 0; i < layer.inputs; ++i) each(plan.lists[layer.first_input + i]);
}

template <typename Each>
void for_writes(const PlanLayer& layer, const Each& each) {
  if (layer.stream != kNone) each(layer.stream);
  for (int i = 0; i < layer.code_outputs; ++i) each(layer.codes[i].value);
}

// Waves from the one that writes a value to the last one that reads it.
struct Life {
  int first = -1, last = -1;
  bool meets(const Life& other) const { return first <= other.last && other.first <= last; }
};

size_t bytes_of(const PlanValue& value) {
  size_t bytes = 0;
  if (value.kind == ValueKind::kStream) {
    bytes = static_cast<size_t>(value.height) * value.width * value.channels * sizeof(float);
  } else if (value.kind == ValueKind::kCodes) {
    bytes = value.height * value.row();
  }
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// The largest first, each at the lowest place that is free while it lives.
void place(Plan& plan, const std::vector<Life>& lives) {
  std::vector<int> order(plan.values.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) {
    return bytes_of(plan.values[a]) > bytes_of(plan.values[b]);
  });
  std::vector<int> placed;
  plan.arena_bytes = 0;
  for (const int index : order) {
    PlanValue& value = plan.values[index];
    const size_t bytes = bytes_of(value);
    value.offset = 0;
    if (bytes == 0) continue;
    std::vector<int> neighbours;
    std::copy_if(placed.begin(), placed.end(), std::back_inserter(neighbours),
                 [&](int other) { return lives[other].meets(lives[index]); });
    std::sort(neighbours.begin(), neighbours.end(),
              [&](int a, int b) { return plan.values[a].offset < plan.values[b].offset; });
    for (const int other : neighbours) {
      const PlanValue& taken = plan.values[other];
      if (value.offset + bytes <= taken.offset) break;
      value.offset = std::max(value.offset, taken.offset + bytes_of(taken));
    }
    placed.push_back(index);
    plan.arena_bytes = std::max(plan.arena_bytes, value.offset + bytes);
  }
}

}  // namespace

Plan in_waves(const Plan& plan) {
  std::vector<Life> lives(plan.values.size());
  std::vector<int> waves;
  for (const PlanLayer& layer : plan.layers) {
    int wave = 0;
    for_reads(plan, layer, [&](int value) { wave = std::max(wave, lives[value].first + 1); });
    for_reads(plan, layer,
              [&](int value) { lives[value].last = std::max(lives[value].last, wave); });
    for_writes(layer, [&](int value) { lives[value] = {wave, wave}; });
    waves.push_back(wave);
  }
  std::vector<int> order(plan.layers.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return waves[a] < waves[b]; });
  Plan result = plan;
  for (size_t i = 0; i < order.size(); ++i) result.layers[i] = plan.layers[order[i]];
  for (PlanValue& value : result.values) value.border = 0;
  place(result, lives);
  return result;
}

}  // namespace mbq::vulkan
