// Weights of f2x2.comp from packed ones, once, when a level is made: U = G w G^T for each of the 16 taps
// of F(2x2,3x3), G per side (2,0,0), (1,1,1), (1,-1,1), (0,0,2). U is within -27..27; U + 27 goes
// into a byte. An invocation computes one tap of four outputs: for every four inputs four words, then
// the sums of U over the inputs, of each output.
//
// Only `channels` and `outputs` of the layer's numbers count; the arena is what is written.

#version 450
#extension GL_GOOGLE_include_directive : require
#include "layer.glsl"
#include "f2x2.glsl"

// Whether a word holds four inputs of an output, or four outputs of an input.
layout(constant_id = 2) const bool BY_OUTPUT = true;

const int G[4][3] = int[4][3](int[3](2, 0, 0), int[3](1, 1, 1), int[3](1, -1, 1), int[3](0, 0, 2));

void main() {
  const uint tap = gl_GlobalInvocationID.x, quad = gl_GlobalInvocationID.y;
  const uint quads = (outputs + 3) / 4, words = (channels + 3) / 4;
  if (quad >= quads) return;
  int factors[9];
  for (uint k = 0; k < 9; ++k) factors[k] = G[tap / 4][k / 3] * G[tap % 4][k % 3];
  int sums[4] = int[4](0, 0, 0, 0);
  for (uint word = 0; word < words; ++word) {
    uint packed_taps[9];
    for (uint k = 0; k < 9; ++k) {
      // conv.comp has the order.
      packed_taps[k] = weights[((quad / 4 * 9 + k) * words + word) * 4 + quad % 4];
    }
    uint made[4] = uint[4](0, 0, 0, 0);
    for (uint o = 0; o < 4; ++o) {
      for (uint c = 0; c < 4; ++c) {
        int u = 0;
        for (uint k = 0; k < 9; ++k) {
          const int code = int(bitfieldExtract(packed_taps[k], int(8 * o + 2 * c), 2));
          u += factors[k] * (2 * code - 3);
        }
        sums[o] += u;
        made[BY_OUTPUT ? o : c] |= uint(u + WEIGHT_OFFSET) << 8 * (BY_OUTPUT ? c : o);
      }
    }
    for (uint i = 0; i < 4; ++i) arena[weights_at(quad, word, words, tap) * 4 + i] = made[i];
  }
  for (uint o = 0; o < 4; ++o) {
    arena[weights_at(quads, quad, words, tap) * 4 + o] = uint(sums[o]);
  }
}
