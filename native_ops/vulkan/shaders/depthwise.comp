// A depthwise convolution: a word of weights holds four taps of four channels, a byte for each
// channel. An invocation computes four channels of one pixel.

#version 450
#extension GL_GOOGLE_include_directive : require
#include "layer.glsl"
#include "finish.glsl"

layout(constant_id = 2) const uint KERNEL = 3;
layout(constant_id = 3) const uint STRIDE = 1;

void main() {
  const uint quad = gl_GlobalInvocationID.x, pixel = gl_GlobalInvocationID.y;
  if (quad >= (outputs + 3) / 4 || pixel >= out_height * out_width) return;
  const uint out_y = pixel / out_width, out_x = pixel % out_width;
  const uint groups = (KERNEL * KERNEL + 3) / 4;
  const uint weights_of = quad / 4 * groups * 4 + quad % 4;
  int acc[4] = int[4](0, 0, 0, 0);
  uint packed_taps = 0;
  for (uint tap = 0; tap < KERNEL * KERNEL; ++tap) {
    if (tap % 4 == 0) packed_taps = weights[weights_of + tap];  // tap / 4 groups of 4 words
    const int y = int(out_y * STRIDE + tap / KERNEL) - int(pad);
    const int x = int(out_x * STRIDE + tap % KERNEL) - int(pad);
    if (uint(y) >= height || uint(x) >= width) continue;
    const uint read = arena[input_origin + uint(y) * input_row + uint(x) * input_pixel + quad];
    for (uint c = 0; c < 4; ++c) {
      const int weight = 2 * int(bitfieldExtract(packed_taps, int(8 * c + 2 * (tap % 4)), 2)) - 3;
      acc[c] += code_of(read, c) * weight;
    }
  }
  finish(out_y, out_x, quad * 4, acc);
}
