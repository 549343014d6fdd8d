// The kernels for AVX-512 with VNNI, each defined where it is written; the table lists them.

#pragma once

#include "../layers.h"

namespace mbq::avx512vnni {

// Convolutions of any shape; see avx512vnni_direct.cpp.
extern const ConvKernel kDirect;           // weights widened to bytes once
extern const ConvKernel kDirectUnpacking;  // weights widened whenever they are read

// Winograd for 3x3 at stride 1 and codes of up to 8 bits; see avx512vnni_f4x4.cpp.
extern const ConvKernel kF4x4;
extern const ConvKernel kF4x4Unpacking;  // transforms 2-bit weights whenever they are read

// Even and odd inputs apart, for 3x3 at stride 2 and codes of up to 6 bits; see avx512vnni_s2.cpp.
extern const ConvKernel kStride2;

// Winograd for 3x3 at stride 1 and codes of up to 6 bits; see avx512vnni_f2x2.cpp.
extern const ConvKernel kF2x2;
extern const ConvKernel kF2x2Unpacking;  // transforms 2-bit weights whenever they are read

extern const ConvKernel kDepthwise;
extern const StemKernel kStem;

void stream(const StreamCall& call, const Parallel& parallel);
void pool_codes(const PoolShape& shape, const CodeImage& input, const CodeImage& output,
                const Parallel& parallel);
void head(const HeadCall& call, const Parallel& parallel);

}  // namespace mbq::avx512vnni
