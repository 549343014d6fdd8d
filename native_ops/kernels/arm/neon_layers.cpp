// The table for ARMv8.0.

#include "../layers.h"

#if defined(__aarch64__)

#include "neon_direct.h"
#include "neon_f2x2.h"
#include "neon_popcount.h"
#include "neon_shared.h"

namespace mbq {
namespace {

constexpr ConvKernel kPopcount2 = Popcount<2>::kernel("u2s2_conv_popcount_1x4__neon");
constexpr ConvKernel kPopcount3 = Popcount<3>::kernel("u3s2_conv_popcount_1x4__neon");
constexpr ConvKernel kPopcount4 = Popcount<4>::kernel("u4s2_conv_popcount_1x4__neon");
constexpr ConvKernel kF2x2For2 = F2x2<LongF2x2<3>>::kernel("u2s2_conv3x3s1_f2x2_2x4__neon");
constexpr ConvKernel kF2x2For4 = F2x2<LongF2x2<15>>::kernel("u4s2_conv3x3s1_f2x2_2x4__neon");
constexpr ConvKernel kF2x2For6 = F2x2<LongF2x2<63>>::kernel("u6s2_conv3x3s1_f2x2_2x4__neon");
constexpr ConvKernel kByteDirect =
    Direct<ByteTile<3>, true>::kernel("u2s2_conv_direct_mla_4x4__neon");
constexpr ConvKernel kByteDirect3 =
    Direct<ByteTile<7>, true>::kernel("u3s2_conv_direct_mla_4x4__neon");
constexpr ConvKernel kLongDirect =
    Direct<LongTile<false>, true>::kernel("u7s2_conv_direct_smlal_4x4__neon");
constexpr ConvKernel kLongUnpacking =
    Direct<LongTile<true>, false>::kernel("u8s2_conv_direct_unpacking_smlal_4x4__neon");
constexpr ConvKernel kLongCentred =
    Direct<LongTile<true>, true>::kernel("u8s2_conv_direct_smlal_4x4__neon");

constexpr const ConvKernel* kConv[] = {&kPopcount2,  &kPopcount3,     &kPopcount4,   &kF2x2For2,
                                       &kF2x2For4,   &kF2x2For6,      &kByteDirect,  &kByteDirect3,
                                       &kLongDirect, &kLongUnpacking, &kLongCentred, nullptr};
constexpr const ConvKernel* kDepthwise[] = {&kNeonDepthwiseBytes, &kNeonDepthwise, nullptr};
constexpr const StemKernel* kStem[] = {&kNeonStem, nullptr};

}  // namespace

const LayerKernels* neon_layers() {
  static constexpr LayerKernels layers{"neon",      kConv,           kDepthwise, kStem,
                                       neon_stream, neon_pool_codes, neon_head};
  return &layers;
}

}  // namespace mbq

#else

namespace mbq {
const LayerKernels* neon_layers() { return nullptr; }
}  // namespace mbq

#endif
