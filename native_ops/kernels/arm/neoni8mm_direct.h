// The tile of USMMLA: 8 pixels x 8 outputs, 16 accumulators of 2 x 2.
//
// USMMLA multiplies 8 unsigned inputs of 2 pixels with 8 signed inputs of 2 outputs.

#pragma once

#include "direct_neon.h"
#include "ordered_neon.h"

namespace mbq {
namespace {

struct MatrixTile {
  static constexpr int kPixels = 8, kOutputs = 8, kInputs = 8;
  static constexpr int kHighest = 255;
  static constexpr int kCentre = 0;

  // [2 times 8 outputs][8 inputs][8 outputs] of 8 inputs each.
  static constexpr size_t word(int o, int group, int groups) {
    return static_cast<size_t>(o / 8) * groups * 8 + static_cast<size_t>(group / 2) * 16 +
           o % 8 * 2 + group % 2;
  }

  // kHalves times 8 inputs: codes[half][pair of pixels]. The weights of 2 outputs are loaded kAhead
  // groups of USMMLA before they are needed.
  template <int kHalves>
  [[gnu::always_inline]] static void step(int32x4_t acc[4][4], const uint8x16_t codes[kHalves][4],
                                          const int8_t* weights) {
    constexpr int kAhead = 2;
    int8x16_t weight[4];
    for (int o = 0; o < kAhead; ++o) weight[o] = load_bytes(weights + 16 * o);
#pragma GCC unroll 8
    for (int i = 0; i < 4 * kHalves; ++i) {
      const int ahead = i + kAhead;
      if (ahead < 4 * kHalves) weight[ahead % 4] = load_bytes(weights + 16 * ahead);
      for (int p = 0; p < 4; ++p) matrix(acc[p][i % 4], codes[i / 4][p], weight[i % 4]);
    }
  }

  [[gnu::always_inline]] static uint8x16_t load_codes(const uint8_t* from) {
    return vreinterpretq_u8_s8(load_bytes(from));
  }

  [[gnu::always_inline]] static uint8x16_t halves(uint8x16_t first, uint8x16_t second, bool high) {
    const uint64x2_t a = vreinterpretq_u64_u8(first), b = vreinterpretq_u64_u8(second);
    return vreinterpretq_u8_u64(high ? vzip2q_u64(a, b) : vzip1q_u64(a, b));
  }

  [[gnu::always_inline]] static void multiply(const uint8_t* const from[8], const Window& window,
                                              const int8_t* weights, const int32_t*,
                                              int32x4_t out[8][2]) {
    int32x4_t acc[4][4];
    for (int p = 0; p < 4; ++p) {
      for (int o = 0; o < 4; ++o) acc[p][o] = vdupq_n_s32(0);
    }
    for (int row = 0; row < window.rows; ++row) {
      for (int column = 0; column < window.columns; ++column) {
        size_t offset = row * window.row_step + column * window.column_step;
        int left = window.bytes;
        for (; left >= 16; left -= 16, weights += 128, offset += 16) {
          asm volatile("// LLVM-MCA-BEGIN neoni8mm_direct_8x8 1024");
          uint8x16_t codes[2][4];
          for (int p = 0; p < 4; ++p) {
            const uint8x16_t first = load_codes(from[2 * p] + offset);
            const uint8x16_t second = load_codes(from[2 * p + 1] + offset);
            codes[0][p] = halves(first, second, false);
            codes[1][p] = halves(first, second, true);
          }
          step<2>(acc, codes, weights);
          asm volatile("// LLVM-MCA-END");
        }
        if (left > 0) {
          uint8x16_t codes[1][4];
          for (int p = 0; p < 4; ++p) {
            codes[0][p] =
                vcombine_u8(vld1_u8(from[2 * p] + offset), vld1_u8(from[2 * p + 1] + offset));
          }
          step<1>(acc, codes, weights);
          weights += 64;
        }
      }
    }
    for (int p = 0; p < 4; ++p) {
      for (int v = 0; v < 2; ++v) {
        const int64x2_t a = vreinterpretq_s64_s32(acc[p][2 * v]);
        const int64x2_t b = vreinterpretq_s64_s32(acc[p][2 * v + 1]);
        out[2 * p][v] = vreinterpretq_s32_s64(vzip1q_s64(a, b));
        out[2 * p + 1][v] = vreinterpretq_s32_s64(vzip2q_s64(a, b));
      }
    }
  }
};

}  // namespace
}  // namespace mbq
