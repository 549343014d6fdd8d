// The multiplication of F(2x2, 3x3) by SDOT: accumulators are [tap][tile][4 outputs], by lane as in
// neondot_direct.h.

#pragma once

#include "f2x2_neon.h"
#include "ordered_neon.h"

namespace mbq {
namespace {

struct DotF2x2 {
  using Vector = int32x4_t;
  static constexpr int kTiles = 4, kOutputs = 8;
  static constexpr int kStepCodes = 2 * kTiles * kStepInputs;
  static constexpr int kStepWeights = 2 * kOutputs * kStepInputs;
  static constexpr int kHighest = 63, kOffset = 128;
  static constexpr int kMaxSteps = 1 << 24;  // int32 takes all
  static constexpr int kAhead = 2;

  static constexpr size_t start_bytes(int) { return 64; }

  // [4 groups of inputs][8 outputs][4 inputs]
  static constexpr int weight(int o, int c) { return c / 4 * 32 + o * 4 + c % 4; }

  static void add_start(uint8_t* block, int o, int, int value) {
    reinterpret_cast<int32_t*>(block)[o] += value;
  }

  [[gnu::always_inline]] static void start(const uint8_t* block, int, int32x4_t acc[8]) {
    for (int i = 0; i < 8; ++i) {
      acc[i] = vld1q_s32(reinterpret_cast<const int32_t*>(block) + 4 * (i % 2));
    }
  }

  [[gnu::always_inline]] static void store_codes(uint8_t* to, int tile, uint8x16_t codes) {
    vst1q_u8(to + 16 * tile, codes);
  }

  template <int kGroup>  // 4 inputs of one tap
  [[gnu::always_inline]] static void group(int32x4_t acc[16], const int8x16_t codes[4],
                                           int8x16_t weight[4], const uint8_t* weights) {
    constexpr int kVectors = kStepWeights / 16;
    for (int v = 0; v < 2; ++v) {
      const int now = 2 * kGroup + v, ahead = now + kAhead;
      if (ahead < kVectors) weight[ahead % 4] = load_bytes(weights + 16 * ahead);
      for (int t = 0; t < kTiles; ++t) {
        dot<kGroup % 4>(acc[kGroup / 4 * 8 + 2 * t + v], weight[now % 4], codes[t]);
      }
    }
  }

  [[gnu::always_inline]] static void step(int32x4_t acc[16], const uint8_t* from,
                                          const uint8_t* weights) {
    asm volatile("// LLVM-MCA-BEGIN neondot_f2x2_4x8 1024");
    int8x16_t codes[2][kTiles], weight[4];
    for (int t = 0; t < kTiles; ++t) codes[0][t] = load_bytes(from + 16 * t);
    for (int i = 0; i < kAhead; ++i) weight[i] = load_bytes(weights + 16 * i);
    group<0>(acc, codes[0], weight, weights);
    group<1>(acc, codes[0], weight, weights);
    for (int t = 0; t < kTiles; ++t) codes[1][t] = load_bytes(from + 64 + 16 * t);
    group<2>(acc, codes[0], weight, weights);
    group<3>(acc, codes[0], weight, weights);
    group<4>(acc, codes[1], weight, weights);
    group<5>(acc, codes[1], weight, weights);
    group<6>(acc, codes[1], weight, weights);
    group<7>(acc, codes[1], weight, weights);
    asm volatile("// LLVM-MCA-END");
  }

  static void result(const int32x4_t* acc, int tile, int32x4_t to[2]) {
    for (int v = 0; v < 2; ++v) to[v] = acc[2 * tile + v];
  }
};

}  // namespace
}  // namespace mbq
