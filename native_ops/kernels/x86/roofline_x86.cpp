// Rooflines of x86. Each function has its own target, so that the file needs no flags.

#include "../roofline.h"

#if defined(__x86_64__)

#include <immintrin.h>

namespace mbq {
namespace {

// Independent sums: enough that no multiply waits for the one before it, few enough for registers.
constexpr int kSums512 = 16;
constexpr int kSums256 = 10;
constexpr int kSumsAvx2 = 6;  // an addition has a shorter delay than a multiply
constexpr int kMacsOf512 = 64;
constexpr int kMacsOf256 = 32;

// A value that the compiler does not know afterwards: known ones it would multiply itself, and
// once.
template <typename T>
inline __attribute__((always_inline)) void hide(T& value) {
  asm volatile("" : "+v"(value));
}

// Of the lanes that a vector was stored to.
template <int kLanes>
int32_t sum_of(const int32_t (&lanes)[kLanes]) {
  int32_t total = 0;
  for (const int32_t lane : lanes) total += lane;
  return total;
}

__attribute__((target("avx512f,avx512bw,avx512vl,avx512vnni"))) int32_t
run_avx512vnni(int64_t rounds) {
  __m512i sums[kSums512];
  for (auto& sum : sums) sum = _mm512_setzero_si512();
  __m512i codes = _mm512_set1_epi8(3), weights = _mm512_set1_epi8(1);
  hide(codes);
  hide(weights);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 16
    for (int i = 0; i < kSums512; ++i) {
      sums[i] = _mm512_dpbusd_epi32(sums[i], codes, weights);
    }
  }
  __m512i total = _mm512_setzero_si512();
  for (const auto& sum : sums) total = _mm512_add_epi32(total, sum);
  alignas(64) int32_t lanes[16];
  _mm512_store_si512(lanes, total);
  return sum_of(lanes);
}

__attribute__((target("avx2,avxvnni"))) int32_t run_avxvnni(int64_t rounds) {
  __m256i sums[kSums256];
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  __m256i codes = _mm256_set1_epi8(3), weights = _mm256_set1_epi8(1);
  hide(codes);
  hide(weights);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 10
    for (int i = 0; i < kSums256; ++i) {
      sums[i] = _mm256_dpbusd_avx_epi32(sums[i], codes, weights);
    }
  }
  __m256i total = _mm256_setzero_si256();
  for (const auto& sum : sums) total = _mm256_add_epi32(total, sum);
  alignas(32) int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), total);
  return sum_of(lanes);
}

// Pairs of products in 16 bits and their sum: the fewest instructions that AVX2 needs for 32
// products, without what widens them later.
__attribute__((target("avx2"))) int32_t run_avx2(int64_t rounds) {
  __m256i sums[kSumsAvx2];
  for (auto& sum : sums) sum = _mm256_setzero_si256();
  __m256i codes = _mm256_set1_epi8(3), weights = _mm256_set1_epi8(1);
  hide(codes);
  hide(weights);
  for (int64_t round = 0; round < rounds; ++round) {
#pragma GCC unroll 6
    for (int i = 0; i < kSumsAvx2; ++i) {
      hide(codes);
      sums[i] = _mm256_add_epi16(sums[i], _mm256_maddubs_epi16(codes, weights));
    }
  }
  __m256i total = _mm256_setzero_si256();
  for (const auto& sum : sums) total = _mm256_add_epi16(total, sum);
  alignas(32) int32_t lanes[8];
  _mm256_store_si256(reinterpret_cast<__m256i*>(lanes), total);
  return sum_of(lanes);
}

}  // namespace

const Roofline* const* x86_rooflines() {
  static constexpr Roofline avx2{"avx2", int64_t{kSumsAvx2} * kMacsOf256, run_avx2};
  static constexpr Roofline avxvnni{"avxvnni", int64_t{kSums256} * kMacsOf256, run_avxvnni};
  static constexpr Roofline avx512vnni{"avx512vnni", int64_t{kSums512} * kMacsOf512,
                                       run_avx512vnni};
  static constexpr Roofline avx512vbmi{"avx512vbmi", avx512vnni.macs, run_avx512vnni};
  static const Roofline* const all[] = {&avx2, &avxvnni, &avx512vnni, &avx512vbmi, nullptr};
  return all;
}

}  // namespace mbq

#else

namespace mbq {

const Roofline* const* x86_rooflines() {
  static const Roofline* const none[] = {nullptr};
  return none;
}

}  // namespace mbq

#endif
