// A stream turned into codes, and perhaps into a stream of its first channels (zeros after them where
// it has fewer), with or without a max pool before: four channels of one pixel.

#version 450
#extension GL_GOOGLE_include_directive : require
#include "layer.glsl"
#include "finish.glsl"

void main() {
  const uint quad = gl_GlobalInvocationID.x, pixel = gl_GlobalInvocationID.y;
  if (quad >= (outputs + 3) / 4 || pixel >= out_height * out_width) return;
  const uint out_y = pixel / out_width, out_x = pixel % out_width;
  // Without a pool the window is the pixel.
  const int side = max(int(pool_kernel), 1), step = max(int(pool_stride), 1);
  const int top = int(out_y) * step - int(pad), left = int(out_x) * step - int(pad);
  float values[4] = float[4](0.0, 0.0, 0.0, 0.0);
  bool first = true;
  for (int y = max(top, 0); y < min(top + side, int(height)); ++y) {
    for (int x = max(left, 0); x < min(left + side, int(width)); ++x) {
      const uint from = input_origin + (uint(y) * width + uint(x)) * channels + quad * 4;
      for (uint c = 0; c < 4 && quad * 4 + c < channels; ++c) {
        const float value = uintBitsToFloat(arena[from + c]);
        if (first || value > values[c]) values[c] = value;
      }
      first = false;
    }
  }
  write_values(out_y, out_x, quad * 4, values);
}
