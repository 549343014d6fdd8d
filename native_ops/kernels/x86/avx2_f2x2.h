// Winograd F(2x2,3x3) for AVX2 and AVX-VNNI: 3x3 convolutions at stride 1 of codes of up to 6 bits,
// exact, with 4 multiplications for each output instead of 9. For the algebra see
// avx2_f2x2_transform.h.
//
// Without vpdpbusd products are sums of pairs in int16, which are widened as seldom as the tap
// allows: with g = h = 1 |U| is at most 27 in the 4 middle taps, 9 in those with one middle row or
// column, 3 in the corners.

#pragma once

#include "avx2_f2x2_transform.h"

namespace mbq {
namespace {

// Two sums of pairs of the middle taps always fit int16.
template <int kMost>
struct WideTaps {
  static constexpr int kOrder[kTaps2] = {0, 3, 12, 15, 1, 2, 4, 8, 7, 11, 13, 14, 5, 6, 9, 10};
  static constexpr int kMostU[kTaps2] = {3, 3, 3, 3, 9, 9, 9, 9, 9, 9, 9, 9, 27, 27, 27, 27};
  static constexpr int kMiddle = 12;  // the first of the middle taps
  static constexpr int kG[4][3] = {{1, 0, 0}, {1, 1, 1}, {1, -1, 1}, {0, 0, 1}};
  static constexpr int kA[2][4] = {{2, 1, 1, 0}, {0, 1, -1, -2}};

  static constexpr int kHighest = kMost;
  static constexpr int kOffset = kHighest > 15 ? 128 : 32;
  static constexpr int steps(int most_u) { return 32767 / (2 * most_u * (kOffset + 2 * kHighest)); }
  static constexpr bool kMiddleInPairs = Codes::kWidens && steps(27) < 8;
  static_assert(kOffset >= 2 * kHighest && kOffset + 2 * kHighest <= 255 && steps(27) >= 2);

  static constexpr int place(int i, int j) {
    int place = 0;
    while (kOrder[place] != 4 * i + j) ++place;
    return place;
  }
};

// `P` tiles x 16 outputs of a tap whose sums have to be widened after every two steps: sums are
// int32 in registers.
template <int P>
[[gnu::always_inline]] inline void multiply_in_pairs(const uint8_t* const* tiles, int groups,
                                                     const uint8_t* u, int32_t* sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i acc[P][kVectors];
#pragma GCC unroll 6
  for (int p = 0; p < P; ++p) acc[p][0] = acc[p][1] = _mm256_setzero_si256();
  size_t offset = 0;
  for (; groups >= 2; groups -= 2, u += 2 * kGroupBytes, offset += 2 * kGroup) {
    __m256i weights[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      weights[i] = _mm256_load_si256(reinterpret_cast<const __m256i*>(u + 32 * i));
    }
#pragma GCC unroll 6
    for (int p = 0; p < P; ++p) {
      const __m256i first = broadcast(tiles[p] + offset);
      const __m256i second = broadcast(tiles[p] + offset + kGroup);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const __m256i pair = _mm256_add_epi16(_mm256_maddubs_epi16(first, weights[v]),
                                              _mm256_maddubs_epi16(second, weights[2 + v]));
        acc[p][v] = _mm256_add_epi32(acc[p][v], _mm256_madd_epi16(pair, ones));
      }
    }
  }
#pragma GCC unroll 6
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      if (groups > 0) {
        const __m256i weights = _mm256_load_si256(reinterpret_cast<const __m256i*>(u + 32 * v));
        const __m256i pair = _mm256_maddubs_epi16(broadcast(tiles[p] + offset), weights);
        acc[p][v] = _mm256_add_epi32(acc[p][v], _mm256_madd_epi16(pair, ones));
      }
      _mm256_store_si256(reinterpret_cast<__m256i*>(sums) + p * kVectors + v, acc[p][v]);
    }
  }
}

// Sums [taps][T][16] of T tiles x 16 outputs.
template <typename Taps, int T>
[[gnu::always_inline]] inline void multiply_taps(const uint8_t* v, size_t tile_bytes, int groups,
                                                 const uint8_t* u, int32_t* sums) {
  const uint8_t* from[T];
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t) from[t] = v + t * tile_bytes;
  const Window window{1, 1, groups, 0, 0};
  for (int tap = 0; tap < (Taps::kMiddleInPairs ? Taps::kMiddle : kTaps2); ++tap) {
    sum_windows<Codes, T>(from, window, u, Taps::steps(Taps::kMostU[tap]), sums);
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) from[t] += T * tile_bytes;
    u += groups * kGroupBytes;
    sums += T * kOutputBlock;
  }
  if constexpr (Taps::kMiddleInPairs) {
    for (int tap = Taps::kMiddle; tap < kTaps2; ++tap) {
      constexpr int kHalf = (T + 1) / 2;
      multiply_in_pairs<kHalf>(from, groups, u, sums);
      if constexpr (T > kHalf) {
        multiply_in_pairs<T - kHalf>(from + kHalf, groups, u, sums + kHalf * kOutputBlock);
      }
#pragma GCC unroll 6
      for (int t = 0; t < T; ++t) from[t] += T * tile_bytes;
      u += groups * kGroupBytes;
      sums += T * kOutputBlock;
    }
  }
}

struct Pair {
  __m256i first, second;
};
[[gnu::always_inline]] inline Pair transform_four(__m256i m0, __m256i m1, __m256i m2, __m256i m3) {
  const __m256i sum = _mm256_add_epi32(m1, m2), difference = _mm256_sub_epi32(m1, m2);
  return {_mm256_add_epi32(sum, _mm256_slli_epi32(m0, 1)),
          _mm256_sub_epi32(difference, _mm256_slli_epi32(m3, 1))};
}

// 8 outputs of a tile of sums [taps], `stride` vectors apart; `correction` of every other vector.
template <typename Taps>
[[gnu::always_inline]] inline void transform_sums(const __m256i* m, size_t stride,
                                                  const __m256i* correction, __m256i (&out)[4]) {
  Pair column[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    column[j] = transform_four(m[Taps::place(0, j) * stride], m[Taps::place(1, j) * stride],
                               m[Taps::place(2, j) * stride], m[Taps::place(3, j) * stride]);
  }
  const Pair upper =
      transform_four(column[0].first, column[1].first, column[2].first, column[3].first);
  const Pair lower =
      transform_four(column[0].second, column[1].second, column[2].second, column[3].second);
  const __m256i sums[4] = {upper.first, upper.second, lower.first, lower.second};
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    out[i] = _mm256_srai_epi32(_mm256_add_epi32(sums[i], correction[i * kVectors]), 2);
  }
}

// 16 outputs of T tiles, the first of which is `first`.
template <typename Taps, bool kDirect, int T>
void multiply_group(const ConvCall& call, const WinogradPlan& plan, const uint8_t* v,
                    const uint8_t* block, int first, const Finish& finish) {
  alignas(32) int32_t sums[kTaps2 * T * kOutputBlock];
  multiply_taps<Taps, T>(v, plan.tile_bytes, groups_of(call.shape), block + kCorrectionBytes, sums);
  const __m256i* const correction = reinterpret_cast<const __m256i*>(block);
  int y = first / plan.columns, x = first % plan.columns;
  for (int t = 0; t < T; ++t) {
    const __m256i* const m = reinterpret_cast<const __m256i*>(sums) + t * kVectors;
    __m256i low[4], high[4];
    transform_sums<Taps>(m, T * kVectors, correction, low);
    transform_sums<Taps>(m + 1, T * kVectors, correction + 1, high);
    finish_square<kDirect>(finish, low, high, call.shape, 2 * y, 2 * x);
    if (++x == plan.columns) {
      x = 0;
      ++y;
    }
  }
}

template <typename Taps>
struct F2x2 : F2x2Inputs<Taps> {
  template <bool kDirect>
  static constexpr MultiplyGroup kMultiplyGroup[kTilePixels] = {
      multiply_group<Taps, kDirect, 1>, multiply_group<Taps, kDirect, 2>,
      multiply_group<Taps, kDirect, 3>, multiply_group<Taps, kDirect, 4>,
      multiply_group<Taps, kDirect, 5>, multiply_group<Taps, kDirect, 6>};

  // Corrections [4][16], then U [taps][groups][16][4].
  static size_t block_bytes(const ConvShape& shape) {
    return kCorrectionBytes + static_cast<size_t>(kTaps2) * groups_of(shape) * kGroupBytes;
  }

  // Adds the weights of channel c and output `lane` to a block.
  static void transform_weights(const ConvShape& shape, const int (&w)[3][3], int c, int lane,
                                uint8_t* block) {
    const int groups = groups_of(shape);
    int32_t* const correction = reinterpret_cast<int32_t*>(block) + lane;
    for (int place = 0; place < kTaps2; ++place) {
      const int u = weight_of_tap<Taps>(w, place);
      const size_t step = static_cast<size_t>(place) * groups + c / kCodesPerByte;
      block[kCorrectionBytes + step * kGroupBytes + lane * kCodesPerByte + c % kCodesPerByte] =
          static_cast<uint8_t>(u);
      for (int i = 0; i < 4; ++i) {
        correction[i * kOutputBlock] += correction_of_tap<Taps>(place, i / 2, i % 2) * u;
      }
    }
  }

  static bool supports(const ConvShape& shape, int highest) {
    return shape.kernel_height == 3 && shape.kernel_width == 3 && shape.stride == 1 &&
           highest <= Taps::kHighest;
  }
};

}  // namespace
}  // namespace mbq
