// A convolution of 3x3 with stride 1 by F(2x2,3x3) (Lavin and Gray, "Fast Algorithms for Convolutional
// Neural Networks", 2016), exactly, for codes of up to 6 bits: 16 products for each input of a tile of 2x2
// results, where the direct sum has 36. U = G w G^T comes from f2x2_weights.comp, V = B^T d B of a
// patch of 4x4 codes is made here, and A^T (sum of U * V over the inputs) A is 4 times the accumulators.
//
// A workgroup is 16 taps by 4 groups of tiles. An invocation sums up one tap of TILES tiles and QUADS * 4
// outputs, which are few registers; each V of a tap needs only four codes of the patch, so nothing of the
// transform is kept in memory. Only the sums of a workgroup are exchanged, once, and the invocations
// then share the pixels of its tiles.
//
// V + bias fits a byte: a tap other than (1, 1) is two codes less two codes, the bias is twice the
// highest code; tap (1, 1) is the sum of four codes and has no bias.

#version 450
#extension GL_GOOGLE_include_directive : require
#if defined(PACKED_PRODUCT)
#extension GL_EXT_spirv_intrinsics : require
#endif
#include "layer.glsl"
#include "f2x2.glsl"
#include "finish.glsl"
#include "product.glsl"

layout(constant_id = 2) const uint TILES = 2;
layout(constant_id = 3) const uint QUADS = 1;

// Four words at a time; the same buffer as `weights`.
layout(std430, set = 0, binding = 1) readonly buffer Vectors { uvec4 weight_vectors[]; };

const uint TAPS = 16, GROUPS = 4, INVOCATIONS = TAPS * GROUPS;

shared int tap_sums[TILES * QUADS * 4 * INVOCATIONS];

// Rows of B^T, and columns of B, are one code plus or minus another: of row 0 to 3 in its bits.
uint first_of(uint row) { return 0x1210 >> 4 * row & 3; }
uint second_of(uint row) { return 0x3122 >> 4 * row & 3; }

// All bits of what is subtracted, which together with a 1 negates it.
uint sign_of(uint row) { return row == 1 ? 0 : ~0u; }

void main() {
  const uint quads = (outputs + 3) / 4, words = (channels + 3) / 4;
  const uint across = (out_width + 1) / 2, tiles = across * ((out_height + 1) / 2);
  const uint tap = gl_LocalInvocationID.x, row = tap / 4, column = tap % 4;
  const uint first_quad = gl_WorkGroupID.x * QUADS;
  const uint group_tile = gl_WorkGroupID.y * GROUPS * TILES;
  const uint first_tile = group_tile + gl_LocalInvocationID.y * TILES;

  // The four codes of a tile's V; NONE outside the image, where codes are 0. Behind the last tile or
  // quad the last one is computed again, and not written.
  uint from[TILES][4];
  for (uint t = 0; t < TILES; ++t) {
    const uint tile = min(first_tile + t, tiles - 1);
    for (uint i = 0; i < 4; ++i) {
      const uint in_row = i < 2 ? first_of(row) : second_of(row);
      const uint in_column = i % 2 == 0 ? first_of(column) : second_of(column);
      const int y = int(tile / across * 2 + in_row) - int(pad);
      const int x = int(tile % across * 2 + in_column) - int(pad);
      from[t][i] = uint(y) < height && uint(x) < width
                       ? input_origin + uint(y) * input_row + uint(x) * input_pixel
                       : NONE;
    }
  }
  const uint across_sign = sign_of(column), down_sign = sign_of(row), both = across_sign ^ down_sign;
  const uint bias = tap == 5 ? 0 : 2 * highest;
  // In every byte, and the ones of the negated words. Sums of words may borrow on the way: what
  // comes out at the end has every byte in its range.
  const uint start = bias * 0x01010101u - across_sign - down_sign - both;

  int acc[TILES * QUADS][4];
  int input_sum[TILES];
  for (uint i = 0; i < TILES * QUADS; ++i) acc[i] = int[4](0, 0, 0, 0);
  for (uint t = 0; t < TILES; ++t) input_sum[t] = 0;
  const uint summed_words = words_that_fit(4 * highest * MOST_WEIGHT);
  for (uint begin = 0; begin < words; begin += min(summed_words, words)) {
    const uint end = begin + min(summed_words, words - begin);
    Sums sums[TILES * QUADS];
    for (uint i = 0; i < TILES * QUADS; ++i) sums[i] = NO_SUMS;
    for (uint word = begin; word < end; ++word) {
      Weights4x4 unpacked[QUADS];
      for (uint q = 0; q < QUADS; ++q) {
        const uint quad = min(first_quad + q, quads - 1);
        unpacked[q] = weights_of_bytes(weight_vectors[weights_at(quad, word, words, tap)]);
      }
      for (uint t = 0; t < TILES; ++t) {
        uint d[4];
        for (uint i = 0; i < 4; ++i) d[i] = from[t][i] != NONE ? arena[from[t][i] + word] : 0;
        const uint v = d[0] + (d[1] ^ across_sign) + (d[2] ^ down_sign) + (d[3] ^ both) + start;
        input_sum[t] += int(sum_of_bytes(v));
        for (uint q = 0; q < QUADS; ++q) add_products(sums[t * QUADS + q], v, unpacked[q]);
      }
    }
    for (uint i = 0; i < TILES * QUADS; ++i) take_apart(sums[i], acc[i]);
  }

  // Without what the offset and the bias added.
  const uint lane = gl_LocalInvocationIndex;
  for (uint q = 0; q < QUADS; ++q) {
    const uint quad = min(first_quad + q, quads - 1);
    const uvec4 weight_sum = weight_vectors[weights_at(quads, quad, words, tap)];
    for (uint t = 0; t < TILES; ++t) {
      const uint i = t * QUADS + q;
      for (uint o = 0; o < 4; ++o) {
        tap_sums[(i * 4 + o) * INVOCATIONS + lane] =
            acc[i][o] - WEIGHT_OFFSET * input_sum[t] - int(bias * weight_sum[o]);
      }
    }
  }
  barrier();

  // Rows of A^T: the sum of rows 0, 1, 2; row 1 less rows 2 and 3.
  for (uint item = lane; item < TILES * QUADS * GROUPS * 4; item += INVOCATIONS) {
    const uint x = item & 1, y = item >> 1 & 1, group = item >> 2 & 3, i = item >> 4;
    const uint tile = group_tile + group * TILES + i / QUADS, quad = first_quad + i % QUADS;
    const uint out_y = tile / across * 2 + y, out_x = tile % across * 2 + x;
    if (tile >= tiles || quad >= quads || out_y >= out_height || out_x >= out_width) continue;
    int result[4];
    for (uint o = 0; o < 4; ++o) {
      const uint place = (i * 4 + o) * INVOCATIONS + group * TAPS + y * 4 + x;
      int sum = 0;
      for (uint a = 0; a < 3; ++a) {
        int part = 0;
        for (uint b = 0; b < 3; ++b) {
          const int value = tap_sums[place + a * 4 + b];
          part += x == 1 && b > 0 ? -value : value;
        }
        sum += y == 1 && a > 0 ? -part : part;
      }
      result[o] = sum >> 2;
    }
    finish(out_y, out_x, quad * 4, result);
  }
}
