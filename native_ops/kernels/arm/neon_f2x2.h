// The multiplication of F(2x2, 3x3) by SMLAL, for ARMv8.0: lanes are inputs, accumulators
// [tap][tile] [output] of 8 int16.
//
// Sums on the way leave int16 and wrap around, which is harmless: what a lane holds in the end is 4
// outputs' sum over its own inputs, at most 4 * 9 * 3 * kCodes for each, so that only the number of
// inputs between two reductions is limited. A start value that makes up for the offset of tap (1,
// 1) has to be that of the lane's own inputs, too.

#pragma once

#include "f2x2_neon.h"
#include "ordered_neon.h"

namespace mbq {
namespace {

template <int kCodes>
struct LongF2x2 {
  using Vector = int16x8_t;
  static constexpr int kTiles = 2, kOutputs = 4;
  static constexpr int kStepCodes = 2 * kTiles * kStepInputs;
  static constexpr int kStepWeights = 2 * kOutputs * kStepInputs;
  static constexpr int kHighest = kCodes;
  static constexpr int kOffset = 4 * kCodes > 127 ? 128 : 0;
  static constexpr int kLaneInputs = kStepInputs / 8;
  static constexpr int kMaxSteps = 32767 / (4 * 9 * 3 * kCodes * kLaneInputs);
  static_assert(kMaxSteps >= 1);

  // Start values of each reduction: [kOutputs][8] of int16.
  static constexpr size_t kStartBytes = kOutputs * 16;
  static constexpr size_t start_bytes(int steps) {
    return kOffset == 0 ? 0 : (steps + kMaxSteps - 1) / kMaxSteps * kStartBytes;
  }

  static constexpr int weight(int o, int c) { return o * kStepInputs + c; }

  static void add_start(uint8_t* block, int o, int c, int value) {
    if constexpr (kOffset != 0) {
      int16_t* const start =
          reinterpret_cast<int16_t*>(block + c / (kStepInputs * kMaxSteps) * kStartBytes + o * 16);
      start[c % 8] = static_cast<int16_t>(start[c % 8] + value);
    }
  }

  [[gnu::always_inline]] static void start(const uint8_t* block, int first, int16x8_t acc[8]) {
    if constexpr (kOffset != 0) {
      const int16_t* const start =
          reinterpret_cast<const int16_t*>(block + first / kMaxSteps * kStartBytes);
      for (int i = 0; i < 8; ++i) acc[i] = vld1q_s16(start + i % kOutputs * 8);
    }
  }

  [[gnu::always_inline]] static void store_codes(uint8_t* to, int tile, uint8x16_t codes) {
    vst1q_u8(to + 16 * tile, codes);
  }

  [[gnu::always_inline]] static void step(int16x8_t acc[16], const uint8_t* from,
                                          const uint8_t* weights) {
    asm volatile("// LLVM-MCA-BEGIN neon_f2x2_smlal_2x4 256");
#pragma GCC unroll 2
    for (int tap = 0; tap < 2; ++tap) {
      int8x16_t codes[kTiles], weight[kOutputs];
      for (int t = 0; t < kTiles; ++t) codes[t] = load_bytes(from + 32 * tap + 16 * t);
      for (int o = 0; o < kOutputs; ++o) weight[o] = load_bytes(weights + 64 * tap + 16 * o);
      int16x8_t* const sums = acc + 8 * tap;
      for (int t = 0; t < kTiles; ++t) {
        for (int o = 0; o < kOutputs; ++o) multiply_low(sums[4 * t + o], codes[t], weight[o]);
      }
      for (int t = 0; t < kTiles; ++t) {
        for (int o = 0; o < kOutputs; ++o) multiply_high(sums[4 * t + o], codes[t], weight[o]);
      }
    }
    asm volatile("// LLVM-MCA-END");
  }

  static void result(const int16x8_t* acc, int tile, int32x4_t to[1]) {
    const int16x8_t* const own = acc + 4 * tile;
    const int32x4_t first = vpaddq_s32(vpaddlq_s16(own[0]), vpaddlq_s16(own[1]));
    const int32x4_t second = vpaddq_s32(vpaddlq_s16(own[2]), vpaddlq_s16(own[3]));
    to[0] = vpaddq_s32(first, second);
  }
};

}  // namespace
}  // namespace mbq
