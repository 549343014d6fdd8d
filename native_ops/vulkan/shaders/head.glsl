// The push constants of the head's two shaders; `HeadNumbers` in dispatch.h, field by field.

#include "level.glsl"

layout(std430, push_constant) uniform Head {
  uint streams[16];  // words of the arena
  uint count, pixels, channels, classes;
  uint pooled;            // word of the arena
  uint bias;              // in the floats
  float by_pixels;        // 1 / pixels, rounded by the host
  float by_streams;       // 1 / count, or 1 for a sum
};
