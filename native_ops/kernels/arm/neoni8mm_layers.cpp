// The table for ARMv8.2 with the dot product and int8 matrix extensions.

#include "../layers.h"

#if defined(__aarch64__) && defined(__ARM_FEATURE_MATMUL_INT8)

#include "neon_shared.h"
#include "neondot_stem.h"
#include "neoni8mm_direct.h"
#include "neoni8mm_f2x2.h"

namespace mbq {
namespace {

constexpr StemKernel kDotStemBytes = DotStem<true>::kernel("u8s8_stem_direct_4x16__neoni8mm");
constexpr StemKernel kDotStem = DotStem<false>::kernel("u8s16_stem_direct_4x16__neoni8mm");
constexpr ConvKernel kF2x2 = F2x2<MatrixF2x2>::kernel("u6s2_conv3x3s1_f2x2_4x8__neoni8mm");
constexpr ConvKernel kUnpacking =
    Direct<MatrixTile, false>::kernel("u8s2_conv_direct_unpacking_8x8__neoni8mm");
constexpr ConvKernel kDirect = Direct<MatrixTile, true>::kernel("u8s2_conv_direct_8x8__neoni8mm");

constexpr const ConvKernel* kConv[] = {&kF2x2, &kUnpacking, &kDirect, nullptr};
constexpr const ConvKernel* kDepthwise[] = {&kNeonDepthwiseBytes, &kNeonDepthwise, nullptr};
constexpr const StemKernel* kStem[] = {&kDotStemBytes, &kDotStem, &kNeonStem, nullptr};

}  // namespace

const LayerKernels* neoni8mm_layers() {
  static constexpr LayerKernels layers{"neoni8mm",  kConv,           kDepthwise, kStem,
                                       neon_stream, neon_pool_codes, neon_head};
  return &layers;
}

}  // namespace mbq

#else

namespace mbq {
const LayerKernels* neoni8mm_layers() { return nullptr; }
}  // namespace mbq

#endif
