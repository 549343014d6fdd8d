// Global average pool of every stream and their join, one channel: sums run over pixels in their order.

#version 450
#extension GL_GOOGLE_include_directive : require
#include "head.glsl"

void main() {
  const uint channel = gl_GlobalInvocationID.x;
  if (channel >= channels) return;
  precise float joined = 0.0;
  for (uint s = 0; s < count; ++s) {
    precise float total = 0.0;
    for (uint p = 0; p < pixels; ++p) {
      total = total + uintBitsToFloat(arena[streams[s] + p * channels + channel]);
    }
    precise float average = total * by_pixels;
    joined = joined + average;
  }
  precise float mean = joined * by_streams;
  arena[pooled + channel] = floatBitsToUint(mean);
}
