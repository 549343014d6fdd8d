// One logit: 16 partial sums, of which number i adds up channels i, i + 16 and so on, then their sum.

#version 450
#extension GL_GOOGLE_include_directive : require
#include "head.glsl"

void main() {
  const uint class_index = gl_GlobalInvocationID.x;
  if (class_index >= classes) return;
  precise float sum = 0.0;
  for (uint lane = 0; lane < 16; ++lane) {
    precise float partial = 0.0;
    for (uint c = lane; c < channels; c += 16) {
      precise float product = uintBitsToFloat(arena[pooled + c]) *
                              uintBitsToFloat(weights[class_index * channels + c]);
      partial = partial + product;
    }
    sum = sum + partial;
  }
  precise float logit = sum + floats[bias + class_index];
  logits[class_index] = logit;
}
