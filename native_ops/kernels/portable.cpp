// The layers in plain C++ for any CPU: loops over 16 outputs that compilers keep in vectors.

#include "portable_conv.h"
#include "portable_stem.h"
#include "portable_stream.h"

namespace mbq {

const LayerKernels* portable_layers() {
  static constexpr ConvKernel kConv{"u8s2_conv_direct_2x32__portable",
                                    supports_all,
                                    nothing_prepared,
                                    nullptr,
                                    conv_scratch,
                                    conv};
  static constexpr ConvKernel kDepthwise{"u8s2_dwconv_direct_1x16__portable",
                                         supports_all,
                                         nothing_prepared,
                                         nullptr,
                                         depthwise_scratch,
                                         depthwise};
  static constexpr StemKernel kStem{"u8s16_stem_direct_1x1__portable",
                                    stem_supports,
                                    stem_prepared,
                                    stem_prepare,
                                    stem_scratch,
                                    stem};
  static constexpr const ConvKernel* kConvs[] = {&kConv, nullptr};
  static constexpr const ConvKernel* kDepthwises[] = {&kDepthwise, nullptr};
  static constexpr const StemKernel* kStems[] = {&kStem, nullptr};
  static constexpr LayerKernels kernels{"portable", kConvs,     kDepthwises, kStems,
                                        stream,     pool_codes, classify};
  return &kernels;
}

}  // namespace mbq
