// The multiplication of F(2x2, 3x3) by SMMLA: accumulators are [tap][2 tiles][2 outputs], each 2 x
// 2 of them.

#pragma once

#include "f2x2_neon.h"
#include "ordered_neon.h"

namespace mbq {
namespace {

struct MatrixF2x2 {
  using Vector = int32x4_t;
  static constexpr int kTiles = 4, kOutputs = 8;
  static constexpr int kStepCodes = 2 * kTiles * kStepInputs;
  static constexpr int kStepWeights = 2 * kOutputs * kStepInputs;
  static constexpr int kHighest = 63, kOffset = 128;
  static constexpr int kMaxSteps = 1 << 24;  // int32 takes all

  static constexpr size_t start_bytes(int) { return 64; }

  // [2 halves of the inputs][8 outputs][8 inputs]
  static constexpr int weight(int o, int c) { return c / 8 * 64 + o * 8 + c % 8; }

  static void add_start(uint8_t* block, int o, int, int value) {
    int32_t* const start = reinterpret_cast<int32_t*>(block) + o / 2 * 4 + o % 2;
    start[0] += value;
    start[2] += value;
  }

  [[gnu::always_inline]] static void start(const uint8_t* block, int, int32x4_t acc[8]) {
    for (int i = 0; i < 8; ++i) {
      acc[i] = vld1q_s32(reinterpret_cast<const int32_t*>(block) + 4 * (i % 4));
    }
  }

  // [2 halves of the inputs][4 tiles][8 inputs]
  [[gnu::always_inline]] static void store_codes(uint8_t* to, int tile, uint8x16_t codes) {
    vst1_u8(to + 8 * tile, vget_low_u8(codes));
    vst1_u8(to + 32 + 8 * tile, vget_high_u8(codes));
  }

  [[gnu::always_inline]] static void step(int32x4_t acc[16], const uint8_t* from,
                                          const uint8_t* weights) {
    asm volatile("// LLVM-MCA-BEGIN neoni8mm_f2x2_4x8 1024");
    constexpr int kAhead = 2, kVectors = kStepWeights / 16;
    int8x16_t codes[2], weight[4];
    for (int i = 0; i < kAhead; ++i) weight[i] = load_bytes(weights + 16 * i);
#pragma GCC unroll 16
    for (int i = 0; i < kVectors; ++i) {
      if (i % 4 == 0) {
        for (int t = 0; t < 2; ++t) codes[t] = load_bytes(from + 8 * i + 16 * t);
      }
      const int ahead = i + kAhead;
      if (ahead < kVectors) weight[ahead % 4] = load_bytes(weights + 16 * ahead);
      for (int t = 0; t < 2; ++t) {
        matrix_signed(acc[i / 8 * 8 + 4 * t + i % 4], codes[t], weight[i % 4]);
      }
    }
    asm volatile("// LLVM-MCA-END");
  }

  static void result(const int32x4_t* acc, int tile, int32x4_t to[2]) {
    for (int v = 0; v < 2; ++v) {
      const int64x2_t a = vreinterpretq_s64_s32(acc[tile / 2 * 4 + 2 * v]);
      const int64x2_t b = vreinterpretq_s64_s32(acc[tile / 2 * 4 + 2 * v + 1]);
      to[v] = vreinterpretq_s32_s64(tile % 2 == 0 ? vzip1q_s64(a, b) : vzip2q_s64(a, b));
    }
  }
};

}  // namespace
}  // namespace mbq
