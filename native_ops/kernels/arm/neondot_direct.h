// The tile of SDOT by lane: 4 pixels x 16 outputs, 16 accumulators.
//
// A vector of weights holds 4 inputs of 4 outputs, a lane of a pixel's vector the same 4 inputs, so
// that a load of 16 codes feeds 16 SDOT and sums need no reduction across lanes.

#pragma once

#include "direct_neon.h"
#include "ordered_neon.h"

namespace mbq {
namespace {

// SDOT is signed x signed. Codes above 127 are centred: acc = sum((code - 128) * w) + 128 * sum(w),
// border included, so that it starts at the second term.
// UDOT (kUnsigned) is unsigned x unsigned: the stem multiplies by unsigned bytes.
template <bool kCentred, bool kUnsigned = false>
struct DotTile {
  static constexpr int kPixels = 4, kOutputs = 16, kInputs = 4;
  static constexpr int kAhead = 2;
  static constexpr int kHighest = kCentred ? 255 : 127;
  static constexpr int kCentre = kCentred ? 128 : 0;

  static constexpr size_t word(int o, int group, int) {
    return static_cast<size_t>(group) * kOutputBlock + o;
  }

  [[gnu::always_inline]] static int8x16_t centred(uint8x16_t codes) {
    return vreinterpretq_s8_u8(kCentred ? veorq_u8(codes, vdupq_n_u8(0x80)) : codes);
  }

  // The weights of 4 outputs are loaded kAhead groups of SDOT before they are needed.
  template <int kLane>
  [[gnu::always_inline]] static void step(int32x4_t acc[4][4], const int8x16_t codes[4],
                                          int8x16_t weight[4], const int8_t* weights, bool last) {
    for (int v = 0; v < 4; ++v) {
      const int ahead = v + kAhead, vector = 4 * kLane + ahead;
      if (!last || ahead < 4) weight[ahead % 4] = load_bytes(weights + 16 * vector);
      for (int p = 0; p < 4; ++p) dot<kLane, kUnsigned>(acc[p][v], weight[v], codes[p]);
    }
  }

  [[gnu::always_inline]] static void multiply(const uint8_t* const from[4], const Window& window,
                                              const int8_t* weights, const int32_t* start,
                                              int32x4_t out[4][4]) {
    int32x4_t acc[4][4];
    for (int p = 0; p < 4; ++p) {
      for (int v = 0; v < 4; ++v) acc[p][v] = vld1q_s32(start + 4 * v);
    }
    for (int row = 0; row < window.rows; ++row) {
      for (int column = 0; column < window.columns; ++column) {
        const size_t offset = row * window.row_step + column * window.column_step;
        const uint8_t* pixel[4];
        for (int p = 0; p < 4; ++p) pixel[p] = from[p] + offset;
        int8x16_t codes[4];
        int left = window.bytes;
        for (; left >= 16; left -= 16, weights += 256) {
          asm volatile("// LLVM-MCA-BEGIN neondot_direct_4x16 1024");
          for (int p = 0; p < 4; ++p) {
            codes[p] = centred(vreinterpretq_u8_s8(load_bytes(pixel[p])));
            pixel[p] += 16;
          }
          int8x16_t weight[4];
          for (int v = 0; v < kAhead; ++v) weight[v] = load_bytes(weights + 16 * v);
          step<0>(acc, codes, weight, weights, false);
          step<1>(acc, codes, weight, weights, false);
          step<2>(acc, codes, weight, weights, false);
          step<3>(acc, codes, weight, weights, true);
          asm volatile("// LLVM-MCA-END");
        }
        for (; left > 0; left -= 4, weights += 64) {
          for (int p = 0; p < 4; ++p) {
            uint32_t word;
            memcpy(&word, pixel[p], 4);
            codes[p] = centred(vreinterpretq_u8_u32(vdupq_n_u32(word)));
            pixel[p] += 4;
          }
          int8x16_t weight[4];
          for (int v = 0; v < kAhead; ++v) weight[v] = load_bytes(weights + 16 * v);
          step<0>(acc, codes, weight, weights, true);
        }
      }
    }
    for (int p = 0; p < 4; ++p) {
      for (int v = 0; v < 4; ++v) out[p][v] = acc[p][v];
    }
  }
};

}  // namespace
}  // namespace mbq
