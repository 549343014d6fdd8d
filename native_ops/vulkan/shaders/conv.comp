// A dense convolution of codes with 2-bit weights, which stay packed: 16 in a word, for four outputs
// and four inputs (kernels/reference.h has the order). An invocation computes PIXELS neighbouring
// pixels of QUADS * 4 outputs, so that a word of weights is unpacked once for PIXELS pixels and a word
// of codes is read once for QUADS * 4 outputs.
//
// Neighbours in x have the same pixels and other outputs; in y other pixels.

#version 450
#extension GL_GOOGLE_include_directive : require
#if defined(PACKED_PRODUCT)
#extension GL_EXT_spirv_intrinsics : require
#endif
#include "layer.glsl"
#include "finish.glsl"
#include "product.glsl"

layout(constant_id = 2) const uint PIXELS = 4;
layout(constant_id = 3) const uint QUADS = 1;
layout(constant_id = 4) const uint KERNEL_HEIGHT = 3;
layout(constant_id = 5) const uint KERNEL_WIDTH = 3;
layout(constant_id = 6) const uint STRIDE = 1;

// Sums of code * weight code become sums of code * (2 * weight code - 3) at the end, with the sum of the
// codes, once for all outputs.
const uint SUMMED_WORDS = words_that_fit(255 * 3);

void main() {
  const uint quads = (outputs + 3) / 4, pixels = out_height * out_width;
  const uint first_quad = gl_GlobalInvocationID.x * QUADS;
  const uint first_pixel = gl_GlobalInvocationID.y * PIXELS;
  if (first_quad >= quads || first_pixel >= pixels) return;

  const uint words = (channels + 3) / 4;
  const uint groups = KERNEL_HEIGHT * KERNEL_WIDTH * words;
  // Behind the last quad or pixel the last one is computed again, and not written.
  uint weights_of[QUADS];
  for (uint q = 0; q < QUADS; ++q) {
    const uint quad = min(first_quad + q, quads - 1);
    weights_of[q] = quad / 4 * groups * 4 + quad % 4;
  }
  int top[PIXELS], left[PIXELS];
  for (uint p = 0; p < PIXELS; ++p) {
    const uint pixel = min(first_pixel + p, pixels - 1);
    top[p] = int(pixel / out_width * STRIDE) - int(pad);
    left[p] = int(pixel % out_width * STRIDE) - int(pad);
  }

  int acc[PIXELS * QUADS][4];
  int code_sum[PIXELS];
  for (uint i = 0; i < PIXELS * QUADS; ++i) acc[i] = int[4](0, 0, 0, 0);
  for (uint p = 0; p < PIXELS; ++p) code_sum[p] = 0;

  for (uint tap = 0; tap < KERNEL_HEIGHT * KERNEL_WIDTH; ++tap) {
    uint from[PIXELS];
    bool inside[PIXELS];
    for (uint p = 0; p < PIXELS; ++p) {
      const int y = top[p] + int(tap / KERNEL_WIDTH), x = left[p] + int(tap % KERNEL_WIDTH);
      inside[p] = uint(y) < height && uint(x) < width;
      from[p] = inside[p] ? input_origin + uint(y) * input_row + uint(x) * input_pixel : 0;
    }
    for (uint begin = 0; begin < words; begin += min(SUMMED_WORDS, words)) {
      const uint end = begin + min(SUMMED_WORDS, words - begin);
      Sums sums[PIXELS * QUADS];
      for (uint i = 0; i < PIXELS * QUADS; ++i) sums[i] = NO_SUMS;
      for (uint word = begin; word < end; ++word) {
        Weights4x4 unpacked[QUADS];
        for (uint q = 0; q < QUADS; ++q) {
          unpacked[q] = weights_of_codes(weights[weights_of[q] + (tap * words + word) * 4]);
        }
        for (uint p = 0; p < PIXELS; ++p) {
          const uint read = inside[p] ? arena[from[p] + word] : 0;
          code_sum[p] += int(sum_of_bytes(read));
          for (uint q = 0; q < QUADS; ++q) add_products(sums[p * QUADS + q], read, unpacked[q]);
        }
      }
      for (uint i = 0; i < PIXELS * QUADS; ++i) take_apart(sums[i], acc[i]);
    }
  }

  for (uint p = 0; p < PIXELS; ++p) {
    const uint pixel = first_pixel + p;
    if (pixel >= pixels) break;
    for (uint q = 0; q < QUADS; ++q) {
      const uint quad = first_quad + q;
      if (quad >= quads) break;
      int result[4];
      for (uint o = 0; o < 4; ++o) result[o] = 2 * acc[p * QUADS + q][o] - 3 * code_sum[p];
      finish(pixel / out_width, pixel % out_width, quad * 4, result);
    }
  }
}
