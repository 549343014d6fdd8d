// The table of AVX-VNNI: the kernels of AVX2, with dot products in one instruction.

#include "../layers.h"

#if defined(__AVXVNNI__)

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
    Winograd<F2x2Merged>::kernel("u6s2_conv3x3s1_f2x2_3x16__avxvnni");
constexpr ConvKernel kF2x2 =
    Winograd<F2x2<WideTaps<63>>>::kernel("u6s2_conv3x3s1_f2x2_6x16__avxvnni");

constexpr ConvKernel kF4x4 = Winograd<F4x4>::kernel("u8s2_conv3x3s1_f4x4_6x16__avxvnni");

constexpr ConvKernel kDirect{"u8s2_conv_direct_6x16__avxvnni",
                             supports_all,
                             direct_prepared_bytes,
                             direct_prepare,
                             no_scratch,
                             direct<255>};
constexpr ConvKernel kDirectUnpacking{"u8s2_conv_direct_unpacking_6x16__avxvnni",
                                      supports_all,
                                      no_bytes,
                                      prepare_nothing,
                                      block_for_each,
                                      direct<255>};
constexpr ConvKernel kDepthwise{"u8s2_depthwise_direct_6x16__avxvnni",
                                depthwise_supports,
                                depthwise_prepared_bytes,
                                depthwise_prepare,
                                no_scratch,
                                depthwise};
constexpr StemKernel kStemBytes = Stem<int8_t>::kernel("u8s8_stem_direct_6x16__avxvnni");
constexpr StemKernel kStem = Stem<int16_t>::kernel("u8s16_stem_direct_6x16__avxvnni");

// Fast algorithms of some shapes first, those of every shape last.
constexpr const ConvKernel* kConvs[] = {&kF2x2Merged,      &kF2x2, &kF4x4, &kDirect,
                                        &kDirectUnpacking, nullptr};
constexpr const ConvKernel* kDepthwises[] = {&kDepthwise, nullptr};
constexpr const StemKernel* kStems[] = {&kStemBytes, &kStem, nullptr};

}  // namespace

const LayerKernels* avxvnni_layers() {
  static constexpr LayerKernels kernels{"avxvnni", kConvs,     kDepthwises, kStems,
                                        stream,    pool_codes, head};
  return &kernels;
}

}  // namespace mbq

#else

namespace mbq {
const LayerKernels* avxvnni_layers() { return nullptr; }
}  // namespace mbq

#endif
