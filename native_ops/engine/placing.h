// New places for a plan's values, for layers that run in another order than the plan's.

#pragma once

#include <functional>
#include <vector>

#include "plan.h"

namespace mbq {

// Calls each(value) for what a layer reads.
template <typename Each>
void for_reads(const Plan& plan, const PlanLayer& layer, const Each& each) {
  if (layer.input != kNone) each(layer.input);
  if (layer.residual != kNone) each(layer.residual);
  for (int i = 0; i < layer.inputs; ++i) each(plan.lists[layer.first_input + i]);
}

// Calls each(value) for what a layer writes.
template <typename Each>
void for_writes(const PlanLayer& layer, const Each& each) {
  if (layer.stream != kNone) each(layer.stream);
  for (int i = 0; i < layer.code_outputs; ++i) each(layer.codes[i].value);
}

// Steps from the one that writes a value to the last one that reads it.
struct Life {
  int first = -1, last = -1;
  bool meets(const Life& other) const { return first <= other.last && other.first <= last; }
};

struct Places {
  std::vector<size_t> offsets;  // of each value
  size_t bytes;                 // of the arena
};

// The largest value first, each at the lowest place where it shares no byte with a value that it
// meets. sizes: bytes of each, multiples of 64; 0 for those that need no place.
Places place(const std::vector<size_t>& sizes, const std::function<bool(int, int)>& meet);

}  // namespace mbq
