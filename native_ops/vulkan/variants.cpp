#include "variants.h"

#include <algorithm>
#include <set>

namespace mbq::vulkan {
namespace {

// Where products of F(2x2,3x3) and the bytes of its operands are exact.
constexpr int kMostWinogradCode = 63;

// The largest first. Shared memory holds 1 KB for each tile and quad of F(2x2,3x3), and every
// device has 16.
constexpr Variant kVariants[] = {
    {Algorithm::kDirect, 4, 2},    {Algorithm::kDirect, 4, 1},   {Algorithm::kDirect, 2, 1},
    {Algorithm::kWinograd, 16, 2}, {Algorithm::kWinograd, 8, 2}, {Algorithm::kWinograd, 4, 1},
};

}  // namespace

std::vector<Variant> all_variants() { return {std::begin(kVariants), std::end(kVariants)}; }

bool allows(const PlanLayer& layer, const Variant& variant) {
  if (variant.quads > divide_up(layer.outputs, 4)) return false;
  return variant.algorithm == Algorithm::kDirect ||
         (layer.kernel_height == 3 && layer.kernel_width == 3 && layer.stride == 1 &&
          layer.highest >= 1 && layer.highest <= kMostWinogradCode);
}

std::string Variant::tile() const {
  return std::to_string(pixels) + "x" + std::to_string(4 * quads);
}

std::string Variant::name() const {
  return (algorithm == Algorithm::kDirect ? "direct-" : "f2x2-") + tile();
}

uint32_t branches_of(const Plan& plan) {
  std::set<int> branches;
  for (const PlanLayer& layer : plan.layers) branches.insert(std::max(layer.branch, 1));
  return static_cast<uint32_t>(branches.size());
}

uint32_t tiles_of(const Plan& plan, const PlanLayer& layer) {
  const ConvShape shape = plan.shape(layer);
  return divide_up(shape.out_height(), 2) * divide_up(shape.out_width(), 2);
}

bool keeps_busy(const Plan& plan, const PlanLayer& layer, uint32_t pixels, uint32_t quads) {
  constexpr size_t kEnough = 4096;
  const ConvShape shape = plan.shape(layer);
  const size_t results = static_cast<size_t>(shape.out_height()) * shape.out_width();
  return size_t{branches_of(plan)} * divide_up(results, pixels) *
             divide_up(divide_up(shape.outputs, 4), quads) >=
         kEnough;
}

Variant likely_variant(const Plan& plan, const PlanLayer& layer, Algorithm algorithm) {
  Variant likely;
  bool found = false;
  for (const Variant& variant : kVariants) {
    if (variant.algorithm != algorithm || !allows(layer, variant)) continue;
    likely = variant;
    found = true;
    // 16 taps of a tile are invocations of their own.
    const uint32_t pixels = algorithm == Algorithm::kDirect ? variant.pixels : variant.pixels / 16;
    if (keeps_busy(plan, layer, std::max(pixels, 1u), variant.quads)) break;
  }
  return found ? likely : likely_variant(plan, layer, Algorithm::kDirect);
}

}  // namespace mbq::vulkan
