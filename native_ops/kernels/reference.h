// The operators of the integer network on raw pointers, for one image, as one would write them
// down: the definition that all other kernels match bit for bit.
//
// Activations are codes (uint8) or the residual stream (float32), both in logical [H, W, C] order.
// Weights are 2-bit codes q in 0..3 that stand for 2q - 3; accumulators are exact int32. After an
// accumulator comes float32 in one fixed order, and each step rounds on its own (no fused
// multiply-add): converted to nearest even, times scale, plus bias, plus the residual, ReLU. Codes
// are rounded half to even.
//
// Nothing here allocates, starts a thread or keeps state.

#pragma once

#include "kernels.h"

namespace mbq::reference {

// What a convolution reads; exactly one of `codes` and `stream` is set.
struct ConvInput {
  const uint8_t* codes;

  // The stream, quantised on the way in: clip(rint(x * scale + offset), 0, highest); what is not a
  // number becomes code 0.
  const float* stream;
  float scale, offset;
  int highest;
};

// What becomes of z = acc * scale + bias; exactly one of `codes` and `stream` is set.
struct ConvOutput {
  const float* scale;  // [outputs]
  const float* bias;   // [outputs]

  uint8_t* codes;  // clip(rint(z), lowest, highest)
  int lowest, highest;

  float* stream;          // z + residual, then ReLU
  const float* residual;  // as stream, or null
  bool relu;
};

// payload: packed weight codes, for each block of 16 outputs and each group of 4 inputs, counted
// over (ky, kx, c) with c fastest and padded to 4, one byte for each output.
void conv(const ConvShape& shape, const ConvInput& input, const uint8_t* payload,
          const ConvOutput& output);

// A filter for each channel: shape.inputs is shape.outputs, the kernel a square of at most
// kMaxDepthwiseKernel. payload: for each block of 16 channels and each group of 4 taps, counted
// over (ky, kx), one byte for each channel.
void depthwise(const ConvShape& shape, const ConvInput& input, const uint8_t* payload,
               const ConvOutput& output);

// output.stream is written with ReLU.
void stem(const ConvShape& shape, const uint8_t* image, const StemWeights& weights,
          const ConvOutput& output);

// Of codes, and of the stream without values that are not numbers.
void max_pool(const PoolShape& shape, const uint8_t* input, uint8_t* output);
void max_pool(const PoolShape& shape, const float* input, float* output);

// The first `to` of each pixel's `from` channels, with zeros after them where it has fewer.
void fit_channels(const float* input, size_t pixels, int from, int to, float* output);

// Mean over pixels of each stream, mean (or sum) over streams, classifier. Sums run in a fixed
// order. streams: `count` pointers to [pixels, channels]; pooled: scratch of 2 * channels floats.
void head(const float* const* streams, int count, int pixels, int channels, const float* weight,
          const float* bias, int classes, bool mean, float* pooled, float* logits);

}  // namespace mbq::reference
