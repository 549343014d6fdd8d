// Loads and multiplications in exactly the order in which they are written: gcc's scheduler would
// move all loads of a tile to its front and run out of registers.
//
// Anonymous for the same reason as finish_neon.h.

#pragma once

#include <arm_neon.h>

namespace mbq {
namespace {

// Volatile statements keep their order.
[[gnu::always_inline]] inline int8x16_t load_bytes(const void* from) {
  using Bytes [[gnu::may_alias, gnu::aligned(1)]] = int8x16_t;
#if defined(__SANITIZE_ADDRESS__)
  return vld1q_s8(static_cast<const int8_t*>(from));  // which it can check
#endif
  int8x16_t loaded;
  asm volatile("ldr %q0, %1" : "=w"(loaded) : "m"(*static_cast<const Bytes*>(from)));
  return loaded;
}

// acc += the products of 8 codes and weights, the first or the last of 16.
[[gnu::always_inline]] inline void multiply_low(int16x8_t& acc, int8x16_t codes, int8x16_t weight) {
  asm volatile("smlal %0.8h, %1.8b, %2.8b" : "+w"(acc) : "w"(codes), "w"(weight));
}
[[gnu::always_inline]] inline void multiply_high(int16x8_t& acc, int8x16_t codes,
                                                 int8x16_t weight) {
  asm volatile("smlal2 %0.8h, %1.16b, %2.16b" : "+w"(acc) : "w"(codes), "w"(weight));
}

// acc += the products of 16 codes and weights.
[[gnu::always_inline]] inline void multiply_bytes(int8x16_t& acc, int8x16_t codes,
                                                  int8x16_t weight) {
  asm volatile("mla %0.16b, %1.16b, %2.16b" : "+w"(acc) : "w"(codes), "w"(weight));
}

#if defined(__ARM_FEATURE_DOTPROD)
// acc[i] += dot product of 4 bytes: those of weight at i, those of codes at kLane.
template <int kLane, bool kUnsigned = false>
[[gnu::always_inline]] inline void dot(int32x4_t& acc, int8x16_t weight, int8x16_t codes) {
  if constexpr (kUnsigned) {
    asm volatile("udot %0.4s, %1.16b, %2.4b[%3]" : "+w"(acc) : "w"(weight), "w"(codes), "n"(kLane));
  } else {
    asm volatile("sdot %0.4s, %1.16b, %2.4b[%3]" : "+w"(acc) : "w"(weight), "w"(codes), "n"(kLane));
  }
}
#endif

#if defined(__ARM_FEATURE_MATMUL_INT8)
// acc, 2 x 2, += codes, 2 x 8, times the transpose of weight, 2 x 8.
[[gnu::always_inline]] inline void matrix(int32x4_t& acc, uint8x16_t codes, int8x16_t weight) {
  asm volatile("usmmla %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(codes), "w"(weight));
}
[[gnu::always_inline]] inline void matrix_signed(int32x4_t& acc, int8x16_t codes,
                                                 int8x16_t weight) {
  asm volatile("smmla %0.4s, %1.16b, %2.16b" : "+w"(acc) : "w"(codes), "w"(weight));
}
#endif

}  // namespace
}  // namespace mbq
