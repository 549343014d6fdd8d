// The table for ARMv8.2 with the dot product extension.

#include "../layers.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)

#include "neon_shared.h"
#include "neondot_direct.h"
#include "neondot_f2x2.h"
#include "neondot_stem.h"

namespace mbq {
namespace {

constexpr StemKernel kDotStemBytes = DotStem<true>::kernel("u8s8_stem_direct_4x16__neondot");
constexpr StemKernel kDotStem = DotStem<false>::kernel("u8s16_stem_direct_4x16__neondot");
constexpr ConvKernel kF2x2 = F2x2<DotF2x2>::kernel("u6s2_conv3x3s1_f2x2_4x8__neondot");
constexpr ConvKernel kDirect =
    Direct<DotTile<false>, true>::kernel("u7s2_conv_direct_4x16__neondot");
constexpr ConvKernel kUnpacking =
    Direct<DotTile<true>, false>::kernel("u8s2_conv_direct_unpacking_4x16__neondot");
constexpr ConvKernel kCentred =
    Direct<DotTile<true>, true>::kernel("u8s2_conv_direct_4x16__neondot");

constexpr const ConvKernel* kConv[] = {&kF2x2, &kDirect, &kUnpacking, &kCentred, nullptr};
constexpr const ConvKernel* kDepthwise[] = {&kNeonDepthwiseBytes, &kNeonDepthwise, nullptr};
constexpr const StemKernel* kStem[] = {&kDotStemBytes, &kDotStem, &kNeonStem, nullptr};

}  // namespace

const LayerKernels* neondot_layers() {
  static constexpr LayerKernels layers{"neondot",   kConv,           kDepthwise, kStem,
                                       neon_stream, neon_pool_codes, neon_head};
  return &layers;
}

}  // namespace mbq

#else

namespace mbq {
const LayerKernels* neondot_layers() { return nullptr; }
}  // namespace mbq

#endif
