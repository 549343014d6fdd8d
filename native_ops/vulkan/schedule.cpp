#include "schedule.h"

#include <algorithm>
#include <numeric>

#include "../engine/placing.h"

namespace mbq::vulkan {
namespace {

constexpr size_t kAlignment = 64;

size_t bytes_of(const PlanValue& value) {
  size_t bytes = 0;
  if (value.kind == ValueKind::kStream) {
    bytes = static_cast<size_t>(value.height) * value.width * value.channels * sizeof(float);
  } else if (value.kind == ValueKind::kCodes) {
    bytes = value.height * value.row();
  }
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
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
  std::vector<size_t> sizes;
  for (const PlanValue& value : result.values) sizes.push_back(bytes_of(value));
  const Places places = place(sizes, [&](int a, int b) { return lives[a].meets(lives[b]); });
  for (size_t i = 0; i < sizes.size(); ++i) result.values[i].offset = places.offsets[i];
  result.arena_bytes = places.bytes;
  return result;
}

}  // namespace mbq::vulkan
