// The table of AVX2.

#include "../layers.h"

#if defined(__AVX2__)

#include "avx2_depthwise.h"
#include "avx2_direct.h"
#include "avx2_f2x2.h"
#include "avx2_f2x2_merged.h"
#include "avx2_f4x4.h"
#include "avx2_stem.h"
#include "avx2_stream.h"

namespace mbq {
namespace {

constexpr ConvKernel kF2x2Merged =
    Winograd<F2x2Merged>::kernel("u6s2_conv3x3s1_f2x2_s16_3x16__avx2");
constexpr ConvKernel kF2x2Of4 =
    Winograd<F2x2<WideTaps<15>>>::kernel("u4s2_conv3x3s1_f2x2_6x16__avx2");
constexpr ConvKernel kF2x2Of6 =
    Winograd<F2x2<WideTaps<63>>>::kernel("u6s2_conv3x3s1_f2x2_6x16__avx2");

constexpr ConvKernel kF4x4 = Winograd<F4x4>::kernel("u8s2_conv3x3s1_f4x4_6x16__avx2");

// Sums of narrower codes fit int16 for longer.
constexpr ConvKernel kDirect6{"u6s2_conv_direct_6x16__avx2",
                              direct_supports<0, 63>,
                              direct_prepared_bytes,
                              direct_prepare,
                              no_scratch,
                              direct<63>};
constexpr ConvKernel kDirect8{"u8s2_conv_direct_6x16__avx2",
                              direct_supports<64, 255>,
                              direct_prepared_bytes,
                              direct_prepare,
                              no_scratch,
                              direct<255>};
constexpr ConvKernel kDirectUnpacking{"u8s2_conv_direct_unpacking_6x16__avx2",
                                      supports_all,
                                      no_bytes,
                                      prepare_nothing,
                                      block_for_each,
                                      direct<255>};
constexpr ConvKernel kDepthwise{"u8s2_depthwise_direct_6x16__avx2",
                                depthwise_supports,
                                depthwise_prepared_bytes,
                                depthwise_prepare,
                                no_scratch,
                                depthwise};
constexpr StemKernel kStem = Stem<int16_t>::kernel("u8s16_stem_direct_6x16__avx2");

// Fast algorithms of some shapes first, those of every shape last.
constexpr const ConvKernel* kConvs[] = {&kF2x2Merged, &kF2x2Of4, &kF2x2Of6,         &kF4x4,
                                        &kDirect6,    &kDirect8, &kDirectUnpacking, nullptr};
constexpr const ConvKernel* kDepthwises[] = {&kDepthwise, nullptr};
constexpr const StemKernel* kStems[] = {&kStem, nullptr};

}  // namespace

const LayerKernels* avx2_layers() {
  static constexpr LayerKernels kernels{"avx2", kConvs,     kDepthwises, kStems,
                                        stream, pool_codes, head};
  return &kernels;
}

}  // namespace mbq

#else

namespace mbq {
const LayerKernels* avx2_layers() { return nullptr; }
}  // namespace mbq

#endif
