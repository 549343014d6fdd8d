// Rooflines of 64-bit Arm. Each function has its own target, so that the file needs no flags.

#include "../roofline.h"

#if defined(__aarch64__)

#include <arm_neon.h>

namespace mbq {
namespace {

// Independent sums: enough that no multiply waits for the one before it, few enough for registers.
constexpr int kSums = 16;

// A value that the compiler does not know afterwards: known ones it would multiply itself, and
// once.
template <typename T>
inline __attribute__((always_inline)) void hide(T& value) {
  asm volatile("" : "+w"(value));
}

int32_t sum_of(const int32x4_t (&sums)[kSums]) {
  int32x4_t total = vdupq_n_s32(0);
  for (const auto& sum : sums) total = vaddq_s32(total, sum);
  return vaddvq_s32(total);
}

// Eight products in 16 bits and their pairwise sum: what NEON has without the dot product.
int32_t run_neon(int64_t rounds) {
  int32x4_t sums[kSums];
  for (auto& sum : sums) sum = vdupq_n_s32(0);
  int8x8_t codes = vdup_n_s8(3), weights = vdup_n_s8(1);
  hide(codes);
  hide(weights);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      hide(codes);
      sums[i] = vpadalq_s16(sums[i], vmull_s8(codes, weights));
    }
  }
  return sum_of(sums);
}

__attribute__((target("arch=armv8.2-a+dotprod"))) int32_t run_neondot(int64_t rounds) {
  int32x4_t sums[kSums];
  for (auto& sum : sums) sum = vdupq_n_s32(0);
  int8x16_t codes = vdupq_n_s8(3), weights = vdupq_n_s8(1);
  hide(codes);
  hide(weights);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      sums[i] = vdotq_s32(sums[i], codes, weights);
    }
  }
  return sum_of(sums);
}

__attribute__((target("arch=armv8.2-a+i8mm"))) int32_t run_neoni8mm(int64_t rounds) {
  int32x4_t sums[kSums];
  for (auto& sum : sums) sum = vdupq_n_s32(0);
  int8x16_t codes = vdupq_n_s8(3), weights = vdupq_n_s8(1);
  hide(codes);
  hide(weights);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums; ++i) {
      sums[i] = vmmlaq_s32(sums[i], codes, weights);
    }
  }
  return sum_of(sums);
}

}  // namespace

const Roofline* const* arm_rooflines() {
  static constexpr Roofline neon{"neon", int64_t{kSums} * 8, run_neon};
  static constexpr Roofline neondot{"neondot", int64_t{kSums} * 16, run_neondot};
  static constexpr Roofline neoni8mm{"neoni8mm", int64_t{kSums} * 32, run_neoni8mm};
  static const Roofline* const all[] = {&neon, &neondot, &neoni8mm, nullptr};
  return all;
}

}  // namespace mbq

#else

namespace mbq {

const Roofline* const* arm_rooflines() {
  static const Roofline* const none[] = {nullptr};
  return none;
}

}  // namespace mbq

#endif
