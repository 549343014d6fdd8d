// The table of AVX-512 with VNNI.

#include "avx512vnni_layers.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

namespace mbq {

const LayerKernels* avx512vnni_layers() {
  using namespace avx512vnni;
  // Fast algorithms of some shapes first, those of every shape last.
  static constexpr const ConvKernel* kConv[] = {
      &kF4x3,    &kF4x3Unpacking,    &kF2x2,   &kF2x2Unpacking,   &kF4x4,  &kF4x4Unpacking,
      &kStride2, &kStride2Unpacking, &kDirect, &kDirectUnpacking, nullptr,
  };
  static constexpr const ConvKernel* kDepthwises[] = {&kDepthwise, nullptr};
  static constexpr const StemKernel* kStems[] = {&kStemBytes, &kStem, nullptr};
  static constexpr LayerKernels kernels{"avx512vnni", kConv,      kDepthwises, kStems,
                                        stream,       pool_codes, head};
  return &kernels;
}

}  // namespace mbq

#else

namespace mbq {
const LayerKernels* avx512vnni_layers() { return nullptr; }
}  // namespace mbq

#endif
