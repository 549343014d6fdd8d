// The push constants of all layers but the head; `LayerNumbers` in dispatch.h, field by field.
// Places are words of the arena; steps too.

#include "level.glsl"

struct CodeOutput {
  uint origin, row, pixel;  // of pixel (0, 0), between rows, between pixels
  float scale, offset;
  uint limits;  // lowest code, and the highest from bit 8
};

const uint FLAG_RELU = 1, FLAG_DIRECT = 2;

layout(std430, push_constant) uniform Layer {
  uint input_origin, input_row, input_pixel;
  uint height, width, channels;
  uint out_height, out_width, outputs;
  uint pad;
  uint residual, stream;  // or NONE
  uint affine;            // in the floats: scales, then biases
  uint flags, code_outputs;
  uint pool_kernel, pool_stride;
  uint highest;    // of the codes that a convolution reads
  uint pad_value;  // of a stem: the pixel outside the image, a byte for each channel
  CodeOutput codes[2];
};
