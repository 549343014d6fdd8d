// Winograd F(2x2,3x3) for AVX2 and AVX-VNNI: 3x3 convolutions at stride 1 of codes of up to 6 bits,
// exact, with 4 multiplications for each output instead of 9. For the algebra see
// avx2_f2x2_transform.h.

#pragma once

#include "avx2_f2x2_transform.h"

namespace mbq {
namespace {

constexpr size_t kCorrectionBytes = 4 * 64;  // of 16 outputs, before their U

// The widest codes and the offset of V. Two sums of pairs of the middle taps always fit int16.
template <int kMost>
struct F2x2Codes {
  static constexpr int kHighest = kMost;
  static constexpr int kOffset = kHighest > 15 ? 128 : 32;
  static constexpr int steps(int most_u) { return 32767 / (2 * most_u * (kOffset + 2 * kHighest)); }
  static constexpr bool kMiddleInPairs = Codes::kWidens && steps(27) < 8;
  static_assert(kOffset >= 2 * kHighest && kOffset + 2 * kHighest <= 255 && steps(27) >= 2);
};

#if !defined(__AVXVNNI__)

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

#endif

// Sums [taps][T][16] of T tiles x 16 outputs.
template <typename Range, int T>
[[gnu::always_inline]] inline void multiply_taps(const uint8_t* v, size_t tile_bytes, int groups,
                                                 const uint8_t* u, int32_t* sums) {
  const uint8_t* from[T];
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t) from[t] = v + t * tile_bytes;
  const Window window{1, 1, groups, 0, 0};
  for (int tap = 0; tap < (Range::kMiddleInPairs ? kTaps2 - kMiddleTaps : kTaps2); ++tap) {
    sum_windows<Codes, T>(from, window, u, Range::steps(kMostU[tap]), sums);
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) from[t] += T * tile_bytes;
    u += groups * kGroupBytes;
    sums += T * kOutputBlock;
  }
#if !defined(__AVXVNNI__)
  if constexpr (Range::kMiddleInPairs) {
    for (int tap = 0; tap < kMiddleTaps; ++tap) {
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
#endif
}

// 16 outputs of T tiles, the first of which is `first`.
template <typename Range, bool kDirect, int T>
void multiply_group(const ConvCall& call, const WinogradPlan& plan, const uint8_t* v,
                    const uint8_t* block, int first, const Finish& finish) {
  alignas(32) int32_t sums[kTaps2 * T * kOutputBlock];
  multiply_taps<Range, T>(v, plan.tile_bytes, groups_of(call.shape), block + kCorrectionBytes,
                          sums);
  const __m256i* const correction = reinterpret_cast<const __m256i*>(block);
  const int height = call.shape.out_height(), width = call.shape.out_width();
  int y = first / plan.columns * 2, x = first % plan.columns * 2;
  for (int t = 0; t < T; ++t) {
    const __m256i* const m = reinterpret_cast<const __m256i*>(sums) + t * kVectors;
    __m256i low[4], high[4];
    transform_sums(m, T * kVectors, low);
    transform_sums(m + 1, T * kVectors, high);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      if (y + i / 2 >= height || x + i % 2 >= width) continue;
      const __m256i low4 = _mm256_add_epi32(low[i], correction[2 * i]);
      const __m256i high4 = _mm256_add_epi32(high[i], correction[2 * i + 1]);
      finish.operator()<kDirect>(_mm256_srai_epi32(low4, 2), _mm256_srai_epi32(high4, 2), y + i / 2,
                                 x + i % 2);
    }
    x += 2;
    if (x >= width) {
      x = 0;
      y += 2;
    }
  }
}

template <typename Range>
struct F2x2 {
  static constexpr int kOut = 2, kTaps = kTaps2;

  template <bool kDirect>
  static constexpr MultiplyGroup kMultiplyGroup[kTilePixels] = {
      multiply_group<Range, kDirect, 1>, multiply_group<Range, kDirect, 2>,
      multiply_group<Range, kDirect, 3>, multiply_group<Range, kDirect, 4>,
      multiply_group<Range, kDirect, 5>, multiply_group<Range, kDirect, 6>};

  static size_t tile_bytes(const ConvShape& shape) { return round_up(shape.inputs, 16); }

  // Corrections [4][16], then U [taps][groups][16][4].
  static size_t block_bytes(const ConvShape& shape) {
    return kCorrectionBytes + static_cast<size_t>(kTaps) * groups_of(shape) * kGroupBytes;
  }

  static void transform(const TileMap& map, int first, int tiles, int channels, size_t tile_bytes,
                        uint8_t* v) {
    int c = 0;
    for (; channels - c > 16; c += 32) {
      transform_inputs<__m256i, Range::kOffset>(map, first, tiles, c, tile_bytes, v);
    }
    if (channels > c) {
      transform_inputs<__m128i, Range::kOffset>(map, first, tiles, c, tile_bytes, v);
    }
  }

  // Adds the weights of channel c and output `lane` to a block.
  static void transform_weights(const ConvShape& shape, const int (&w)[3][3], int c, int lane,
                                uint8_t* block) {
    const int groups = groups_of(shape);
    int32_t* const correction = reinterpret_cast<int32_t*>(block) + lane;
    for (int place = 0; place < kTaps; ++place) {
      const int u = weight_of_tap(w, place);
      const size_t step = static_cast<size_t>(place) * groups + c / kCodesPerByte;
      block[kCorrectionBytes + step * kGroupBytes + lane * kCodesPerByte + c % kCodesPerByte] =
          static_cast<uint8_t>(u);
      for (int i = 0; i < 4; ++i) {
        correction[i * kOutputBlock] -= Range::kOffset * share_of_tap(place, i / 2, i % 2) * u;
      }
    }
  }

  static bool supports(const ConvShape& shape, int highest) {
    return shape.kernel_height == 3 && shape.kernel_width == 3 && shape.stride == 1 &&
           highest <= Range::kHighest;
  }
};

}  // namespace
}  // namespace mbq
