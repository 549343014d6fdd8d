// The first convolution: 16-bit weights on the image's bytes. Weights are uploaded as [tap, channel,
// output], outputs padded to 4, two to a word. An invocation computes four outputs of PIXELS
// neighbouring pixels, so that weights are read once for PIXELS pixels.

#version 450
#extension GL_GOOGLE_include_directive : require
#include "layer.glsl"
#include "finish.glsl"

layout(constant_id = 2) const uint PIXELS = 4;
layout(constant_id = 3) const uint KERNEL_HEIGHT = 3;
layout(constant_id = 4) const uint KERNEL_WIDTH = 3;
layout(constant_id = 5) const uint STRIDE = 1;

// The pixel's channels, the first in the lowest bits; they may lie in two words.
uint pixel_at(int y, int x) {
  if (uint(y) >= height || uint(x) >= width) return pad_value;
  const uint from = (uint(y) * width + uint(x)) * channels;
  const uint first = from / 4, last = (from + channels - 1) / 4, shift = from % 4 * 8;
  const uint low = arena[input_origin + first] >> shift;
  return first == last ? low : low | arena[input_origin + last] << (32 - shift);
}

void main() {
  const uint quads = (outputs + 3) / 4, pixels = out_height * out_width;
  const uint quad = gl_GlobalInvocationID.x, first_pixel = gl_GlobalInvocationID.y * PIXELS;
  if (quad >= quads || first_pixel >= pixels) return;
  int acc[PIXELS][4];
  for (uint p = 0; p < PIXELS; ++p) acc[p] = int[4](0, 0, 0, 0);
  for (uint tap = 0; tap < KERNEL_HEIGHT * KERNEL_WIDTH; ++tap) {
    uint read[PIXELS];
    for (uint p = 0; p < PIXELS; ++p) {
      // Behind the last pixel the last one is computed again, and not written.
      const uint pixel = min(first_pixel + p, pixels - 1);
      const int y = int(pixel / out_width * STRIDE + tap / KERNEL_WIDTH) - int(pad);
      read[p] = pixel_at(y, int(pixel % out_width * STRIDE + tap % KERNEL_WIDTH) - int(pad));
    }
    for (uint c = 0; c < channels; ++c) {
      const uint at = ((tap * channels + c) * quads + quad) * 2;
      const int low = int(weights[at]), high = int(weights[at + 1]);
      const int weight[4] = int[4](bitfieldExtract(low, 0, 16), low >> 16,
                                   bitfieldExtract(high, 0, 16), high >> 16);
      for (uint p = 0; p < PIXELS; ++p) {
        const int value = code_of(read[p], c);
        for (uint o = 0; o < 4; ++o) acc[p][o] += value * weight[o];
      }
    }
  }
  for (uint p = 0; p < PIXELS && first_pixel + p < pixels; ++p) {
    const uint pixel = first_pixel + p;
    finish(pixel / out_width, pixel % out_width, quad * 4, acc[p]);
  }
}
