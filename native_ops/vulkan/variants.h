// The ways to compute a convolution: which algorithm, and how much an invocation computes.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../engine/plan.h"

namespace mbq::vulkan {

enum class Algorithm {
  kDirect,
  kWinograd,  // F(2x2,3x3); shaders/f2x2.comp
};

struct Variant {
  Algorithm algorithm = Algorithm::kDirect;
  // Of the results of an invocation; with kWinograd it computes one of 16 taps of them.
  uint32_t pixels = 4, quads = 1;

  uint32_t tiles() const { return pixels / 4; }  // of 2x2
  std::string tile() const;                      // "4x8": pixels by outputs
  std::string name() const;                      // "direct-4x8"
  bool operator==(const Variant&) const = default;
};

// Of direct ones first, the largest first.
std::vector<Variant> all_variants();

// Whether a variant can compute a layer, which is a convolution.
bool allows(const PlanLayer& layer, const Variant& variant);

// The one of an algorithm (direct where the layer allows no other) that is likely to be good:
// larger tiles read less, but a GPU needs some thousand invocations at a time, those of all
// branches.
Variant likely_variant(const Plan& plan, const PlanLayer& layer, Algorithm algorithm);

// Whether a layer in tiles of so many results has that many invocations.
bool keeps_busy(const Plan& plan, const PlanLayer& layer, uint32_t pixels, uint32_t quads);

// How many branches run side by side.
uint32_t branches_of(const Plan& plan);

// Tiles of 2x2 in the results of a layer.
uint32_t tiles_of(const Plan& plan, const PlanLayer& layer);

inline uint32_t divide_up(size_t value, size_t by) {
  return static_cast<uint32_t>((value + by - 1) / by);
}

}  // namespace mbq::vulkan
