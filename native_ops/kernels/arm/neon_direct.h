// Tiles for ARMv8.0, which has no dot product: 4 pixels x 4 outputs, lanes are inputs.
//
// 8-bit multiplications have no form with a lane, so that operands are 16 inputs of a pixel and 16
// inputs of an output, and sums are reduced across lanes at the end.

#pragma once

#include "direct_neon.h"

namespace mbq {
namespace {

struct FourOutputs {
  static constexpr int kPixels = 4, kOutputs = 4, kInputs = 16;

  // [4 times 4 outputs][16 inputs][4 outputs] of 16 inputs each.
  static constexpr size_t word(int o, int group, int groups) {
    return static_cast<size_t>(o / 4) * groups * 4 + static_cast<size_t>(group / 4) * 16 +
           o % 4 * 4 + group % 4;
  }

  // Calls each(addresses, weights, vectors) for pieces of at most `most` vectors of 16 inputs, and
  // flush() after every `most` vectors and at the end.
  template <typename Each, typename Flush>
  [[gnu::always_inline]] static void walk(const uint8_t* const from[4], const Window& window,
                                          int most, const Each& each, const Flush& flush) {
    int left = most;
    for (int row = 0; row < window.rows; ++row) {
      for (int column = 0; column < window.columns; ++column) {
        const size_t offset = row * window.row_step + column * window.column_step;
        const uint8_t* pixel[4];
        for (int p = 0; p < 4; ++p) pixel[p] = from[p] + offset;
        for (int vectors = window.bytes / 16; vectors > 0;) {
          const int now = vectors < left ? vectors : left;
          each(pixel, now);
          vectors -= now;
          left -= now;
          if (left == 0) {
            flush();
            left = most;
          }
        }
      }
    }
    flush();
  }
};

// SMLAL: products summed in int16. A vector adds two products to a lane, at most 2 * 3 * 128, so
// that 42 vectors fit. Codes above 127 are centred, as for SDOT.
template <bool kCentred>
struct LongTile : FourOutputs {
  static constexpr int kHighest = kCentred ? 255 : 127;
  static constexpr int kCentre = kCentred ? 128 : 0;
  static constexpr int kVectors = 42;
  static_assert(kVectors * 2 * 3 * 128 <= 32767);

  [[gnu::always_inline]] static void multiply(const uint8_t* const from[4], const Window& window,
                                              const int8_t* weights, const int32_t* start,
                                              int32x4_t acc[4][1]) {
    int16x8_t sum[4][4];
    for (int p = 0; p < 4; ++p) {
      acc[p][0] = vld1q_s32(start);
      for (int o = 0; o < 4; ++o) sum[p][o] = vdupq_n_s16(0);
    }
    const auto each = [&](const uint8_t** pixel, int vectors) __attribute__((always_inline)) {
      for (; vectors > 0; --vectors, weights += 64) {
        asm volatile("// LLVM-MCA-BEGIN neon_smlal_4x4 256");
        int8x16_t codes[4];
        for (int p = 0; p < 4; ++p) {
          const uint8x16_t loaded = vld1q_u8(pixel[p]);
          codes[p] = vreinterpretq_s8_u8(kCentred ? veorq_u8(loaded, vdupq_n_u8(0x80)) : loaded);
          pixel[p] += 16;
        }
        for (int o = 0; o < 4; ++o) {
          const int8x16_t weight = vld1q_s8(weights + 16 * o);
          for (int p = 0; p < 4; ++p) {
            sum[p][o] = vmlal_s8(sum[p][o], vget_low_s8(codes[p]), vget_low_s8(weight));
            sum[p][o] = vmlal_high_s8(sum[p][o], codes[p], weight);
          }
        }
        asm volatile("// LLVM-MCA-END");
      }
    };
    const auto flush = [&]() __attribute__((always_inline)) {
      for (int p = 0; p < 4; ++p) {
        const int32x4_t first = vpaddq_s32(vpaddlq_s16(sum[p][0]), vpaddlq_s16(sum[p][1]));
        const int32x4_t second = vpaddq_s32(vpaddlq_s16(sum[p][2]), vpaddlq_s16(sum[p][3]));
        acc[p][0] = vaddq_s32(acc[p][0], vpaddq_s32(first, second));
        for (int o = 0; o < 4; ++o) sum[p][o] = vdupq_n_s16(0);
      }
    };
    walk(from, window, kVectors, each, flush);
  }
};

// MLA on 16 lanes: products are summed in int8, as many as fit, and only then widened; twice the
// products of SMLAL for each instruction.
template <int kCodes>
struct ByteTile : FourOutputs {
  static constexpr int kHighest = kCodes;
  static constexpr int kCentre = 0;
  static constexpr int kVectors = 127 / (3 * kCodes);
  static_assert(kVectors > 1);

  [[gnu::always_inline]] static void multiply(const uint8_t* const from[4], const Window& window,
                                              const int8_t* weights, const int32_t* start,
                                              int32x4_t acc[4][1]) {
    int8x16_t sum[4][4];
    for (int p = 0; p < 4; ++p) {
      acc[p][0] = vld1q_s32(start);
      for (int o = 0; o < 4; ++o) sum[p][o] = vdupq_n_s8(0);
    }
    const auto each = [&](const uint8_t** pixel, int vectors) __attribute__((always_inline)) {
      for (; vectors > 0; --vectors, weights += 64) {
        asm volatile("// LLVM-MCA-BEGIN neon_mla_4x4 256");
        int8x16_t codes[4];
        for (int p = 0; p < 4; ++p) {
          codes[p] = vreinterpretq_s8_u8(vld1q_u8(pixel[p]));
          pixel[p] += 16;
        }
        for (int o = 0; o < 4; ++o) {
          const int8x16_t weight = vld1q_s8(weights + 16 * o);
          for (int p = 0; p < 4; ++p) sum[p][o] = vmlaq_s8(sum[p][o], codes[p], weight);
        }
        asm volatile("// LLVM-MCA-END");
      }
    };
    const auto flush = [&]() __attribute__((always_inline)) {
      for (int p = 0; p < 4; ++p) {
        const int16x8_t first = vpaddq_s16(vpaddlq_s8(sum[p][0]), vpaddlq_s8(sum[p][1]));
        const int16x8_t second = vpaddq_s16(vpaddlq_s8(sum[p][2]), vpaddlq_s8(sum[p][3]));
        acc[p][0] = vpadalq_s16(acc[p][0], vpaddq_s16(first, second));
        for (int o = 0; o < 4; ++o) sum[p][o] = vdupq_n_s8(0);
      }
    };
    walk(from, window, kVectors, each, flush);
  }
};

}  // namespace
}  // namespace mbq
