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

// Winograd for 3x3 at stride 1 and codes of 2 bits; see avx512vnni_f4x3.cpp.
extern const ConvKernel kF4x3;
extern const ConvKernel kF4x3Unpacking;  // transforms 2-bit weights whenever they are read

// Even and odd inputs apart, for 3x3 at stride 2 and codes of up to 6 bits; see avx512vnni_s2.cpp.
extern const ConvKernel kStride2;
extern const ConvKernel kStride2Unpacking;

// Winograd for 3x3 at stride 1 and codes of up to 6 bits; see avx512vnni_f2x2.cpp.
extern const ConvKernel kF2x2;
extern const ConvKernel kF2x2Unpacking;  // transforms 2-bit weights whenever they are read

// The same with another transform: U of a block of 16 outputs, in the order that
// avx512vnni_f2x2_weights.h describes.
using MakeU = void (*)(const ConvShape& shape, const uint8_t* payload, int block, uint8_t* to);
void run_f2x2_unpacking(const ConvCall& call, const Parallel& parallel, MakeU make_u);

extern const ConvKernel kDepthwise;
extern const StemKernel kStemBytes;
extern const StemKernel kStem;

void stream(const StreamCall& call, const Parallel& parallel);
// A row without a pool, in the calling thread.
void stream_row(const StreamCall& call);
void pool_codes(const PoolShape& shape, const CodeImage& input, const CodeImage& output,
                const Parallel& parallel);
void head(const HeadCall& call, const Parallel& parallel);

}  // namespace mbq::avx512vnni
