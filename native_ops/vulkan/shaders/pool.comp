// The largest codes of every window, for four channels of one pixel.

#version 450
#extension GL_GOOGLE_include_directive : require
#include "layer.glsl"

void main() {
  const uint quad = gl_GlobalInvocationID.x, pixel = gl_GlobalInvocationID.y;
  if (quad >= (outputs + 3) / 4 || pixel >= out_height * out_width) return;
  const uint out_y = pixel / out_width, out_x = pixel % out_width;
  const int top = int(out_y * pool_stride) - int(pad), left = int(out_x * pool_stride) - int(pad);
  const int side = int(pool_kernel);
  int largest[4] = int[4](0, 0, 0, 0);
  for (int y = max(top, 0); y < min(top + side, int(height)); ++y) {
    for (int x = max(left, 0); x < min(left + side, int(width)); ++x) {
      const uint read = arena[input_origin + uint(y) * input_row + uint(x) * input_pixel + quad];
      for (uint c = 0; c < 4; ++c) largest[c] = max(largest[c], code_of(read, c));
    }
  }
  arena[codes[0].origin + out_y * codes[0].row + out_x * codes[0].pixel + quad] =
      uint(largest[0] | largest[1] << 8 | largest[2] << 16 | largest[3] << 24);
}
