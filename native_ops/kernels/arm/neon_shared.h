// Kernels for ARMv8.0 that every NEON table lists: no later extension makes them faster.

#pragma once

#include "../layers.h"

namespace mbq {

extern const ConvKernel kNeonDepthwiseBytes;
extern const ConvKernel kNeonDepthwise;
extern const StemKernel kNeonStem;

void neon_stream(const StreamCall& call, const Parallel& parallel);
void neon_pool_codes(const PoolShape& shape, const CodeImage& input, const CodeImage& output,
                     const Parallel& parallel);
void neon_head(const HeadCall& call, const Parallel& parallel);

}  // namespace mbq
