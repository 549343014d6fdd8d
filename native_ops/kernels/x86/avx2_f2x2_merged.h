// Winograd F(2x2,3x3) with half of the output transform merged into the products: 3x3 convolutions
// at stride 1 of codes of up to 6 bits, exact. For the algebra see avx2_f2x2_transform.h.
//
// With g = 2 and h = -2 the transform of the outputs only adds and subtracts. In each column of
// taps M(1,j) and M(2,j) are summed side by side, added and subtracted in their registers, and
// M(0,j) and M(3,j) are accumulated on top of that: 3 tiles x 16 outputs in 12 registers.
//
// With vpdpbusd sums are int32. Without, they are int16 that may wrap as long as the result, 4
// times the sum over one of the two inputs of each pair, fits: few inputs or narrow codes. Each sum
// of a pair, at most 2 * 27 * 254, fits anyway.

#pragma once

#include "avx2_f2x2_transform.h"

namespace mbq {
namespace {

struct MergedTaps {
  // Column by column: rows 1, 2, 0, 3.
  static constexpr int kOrder[kTaps2] = {4, 8, 0, 12, 5, 9, 1, 13, 6, 10, 2, 14, 7, 11, 3, 15};
  static constexpr int kG[4][3] = {{2, 0, 0}, {1, 1, 1}, {1, -1, 1}, {0, 0, -2}};
  static constexpr int kA[2][4] = {{1, 1, 1, 0}, {0, 1, -1, 1}};
  static constexpr int kHighest = 63, kOffset = 128;

  static constexpr int place(int i, int j) {
    int place = 0;
    while (kOrder[place] != 4 * i + j) ++place;
    return place;
  }
};

#if defined(__AVXVNNI__)

struct Sums {
  using Correction = int32_t;  // [4][16 outputs]
  static constexpr size_t correction(int output, int) { return output; }
  static constexpr bool fit(int, int) { return true; }

  [[gnu::always_inline]] static __m256i add(__m256i a, __m256i b) { return _mm256_add_epi32(a, b); }
  [[gnu::always_inline]] static __m256i sub(__m256i a, __m256i b) { return _mm256_sub_epi32(a, b); }
  // Accumulators from 4 times them.
  [[gnu::always_inline]] static __m256i quarter(__m256i sum) { return _mm256_srai_epi32(sum, 2); }
};

#else

struct Sums {
  using Correction = int16_t;  // [4][16 outputs][2 pairs]
  static constexpr size_t correction(int output, int channel) {
    return output * 2 + channel % kCodesPerByte / 2;
  }
  static constexpr bool fit(int groups, int highest) {
    return int64_t{4} * 9 * 3 * 2 * groups * highest <= 32767;
  }

  [[gnu::always_inline]] static __m256i add(__m256i a, __m256i b) { return _mm256_add_epi16(a, b); }
  [[gnu::always_inline]] static __m256i sub(__m256i a, __m256i b) { return _mm256_sub_epi16(a, b); }
  [[gnu::always_inline]] static __m256i quarter(__m256i sum) {
    return _mm256_srai_epi32(_mm256_madd_epi16(sum, _mm256_set1_epi16(1)), 2);
  }
};

#endif

// Adds the products of two taps, side by side.
template <int P>
[[gnu::always_inline]] inline void multiply_two(__m256i (&acc)[2][P][kVectors],
                                                const uint8_t* const* tiles, size_t tap_bytes,
                                                int groups, const uint8_t* u) {
  const uint8_t* from[2][P];
#pragma GCC unroll 3
  for (int p = 0; p < P; ++p) {
    from[0][p] = tiles[p];
    from[1][p] = tiles[p] + tap_bytes;
  }
  for (size_t offset = 0; groups > 0; --groups, offset += kGroup) {
#pragma GCC unroll 2
    for (int tap = 0; tap < 2; ++tap, u += kGroupBytes) {
      const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(u));
      const __m256i w1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(u + 32));
#pragma GCC unroll 3
      for (int p = 0; p < P; ++p) {
        const __m256i codes = broadcast(from[tap][p] + offset);
        Codes::dot(acc[tap][p][0], codes, w0);
        Codes::dot(acc[tap][p][1], codes, w1);
      }
    }
  }
}

// A column of taps of `P` tiles x 16 outputs, in two rows that are `row` vectors apart.
template <int P>
[[gnu::always_inline]] inline void multiply_column(const uint8_t* v, size_t tile_bytes,
                                                   size_t tap_bytes, int groups, const uint8_t* u,
                                                   __m256i* sums, size_t row) {
  const uint8_t* tiles[P];
  __m256i acc[2][P][kVectors];
#pragma GCC unroll 3
  for (int p = 0; p < P; ++p) {
    tiles[p] = v + p * tile_bytes;
    for (int i = 0; i < kVectors; ++i) acc[0][p][i] = acc[1][p][i] = _mm256_setzero_si256();
  }
  multiply_two<P>(acc, tiles, tap_bytes, groups, u);
#pragma GCC unroll 3
  for (int p = 0; p < P; ++p) {
    tiles[p] += 2 * tap_bytes;
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) {
      const __m256i sum = Sums::add(acc[0][p][i], acc[1][p][i]);
      acc[1][p][i] = Sums::sub(acc[0][p][i], acc[1][p][i]);
      acc[0][p][i] = sum;
    }
  }
  multiply_two<P>(acc, tiles, tap_bytes, groups, u + 2 * groups * kGroupBytes);
#pragma GCC unroll 3
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
    for (int i = 0; i < kVectors; ++i) {
      _mm256_store_si256(sums + p * kVectors + i, acc[0][p][i]);
      _mm256_store_si256(sums + row + p * kVectors + i, acc[1][p][i]);
    }
  }
}

// 8 outputs of a tile of sums [column][row], `stride` vectors apart.
[[gnu::always_inline]] inline void transform_columns(const __m256i* sums, size_t stride,
                                                     const __m256i* correction, __m256i (&out)[4]) {
#pragma GCC unroll 2
  for (int row = 0; row < 2; ++row) {
    const __m256i m0 = sums[row * stride], m1 = sums[(2 + row) * stride];
    const __m256i m2 = sums[(4 + row) * stride], m3 = sums[(6 + row) * stride];
    const __m256i left = Sums::add(m0, Sums::add(m1, m2));
    const __m256i right = Sums::add(m3, Sums::sub(m1, m2));
    out[2 * row] = Sums::quarter(Sums::add(left, correction[2 * row * kVectors]));
    out[2 * row + 1] = Sums::quarter(Sums::add(right, correction[(2 * row + 1) * kVectors]));
  }
}

// 16 outputs of T tiles, the first of which is `first`.
template <bool kDirect, int T>
void multiply_merged(const ConvCall& call, const WinogradPlan& plan, const uint8_t* v,
                     const uint8_t* block, int first, const Finish& finish) {
  constexpr int kHalf = (T + 1) / 2;
  constexpr size_t kRow = T * kVectors;
  const int groups = groups_of(call.shape);
  const size_t tap_bytes = T * plan.tile_bytes;
  __m256i sums[4 * 2 * kRow];
  const uint8_t* u = block + kCorrectionBytes;
  for (int j = 0; j < 4; ++j) {
    __m256i* const to = sums + j * 2 * kRow;
    multiply_column<kHalf>(v, plan.tile_bytes, tap_bytes, groups, u, to, kRow);
    if constexpr (T > kHalf) {
      multiply_column<T - kHalf>(v + kHalf * plan.tile_bytes, plan.tile_bytes, tap_bytes, groups, u,
                                 to + kHalf * kVectors, kRow);
    }
    v += 4 * tap_bytes;
    u += 4 * groups * kGroupBytes;
  }
  const __m256i* const correction = reinterpret_cast<const __m256i*>(block);
  int y = first / plan.columns, x = first % plan.columns;
  for (int t = 0; t < T; ++t) {
    __m256i low[4], high[4];
    transform_columns(sums + t * kVectors, kRow, correction, low);
    transform_columns(sums + t * kVectors + 1, kRow, correction + 1, high);
    finish_square<kDirect>(finish, low, high, call.shape, 2 * y, 2 * x);
    if (++x == plan.columns) {
      x = 0;
      ++y;
    }
  }
}

struct F2x2Merged : F2x2Inputs<MergedTaps> {
  template <bool kDirect>
  static constexpr MultiplyGroup kMultiplyGroup[kTilePixels] = {
      multiply_merged<kDirect, 1>, multiply_merged<kDirect, 2>, multiply_merged<kDirect, 3>,
      multiply_merged<kDirect, 4>, multiply_merged<kDirect, 5>, multiply_merged<kDirect, 6>};

  // Corrections, then U [column][rows 1 and 2, 0 and 3][groups][row][16][4].
  static size_t block_bytes(const ConvShape& shape) {
    return kCorrectionBytes + static_cast<size_t>(kTaps2) * groups_of(shape) * kGroupBytes;
  }

  // Adds the weights of channel c and output `lane` to a block.
  static void transform_weights(const ConvShape& shape, const int (&w)[3][3], int c, int lane,
                                uint8_t* block) {
    const int groups = groups_of(shape);
    Sums::Correction* const correction =
        reinterpret_cast<Sums::Correction*>(block) + Sums::correction(lane, c);
    for (int place = 0; place < kTaps2; ++place) {
      const int u = weight_of_tap<MergedTaps>(w, place);
      const size_t step =
          (static_cast<size_t>(place / 2) * groups + c / kCodesPerByte) * 2 + place % 2;
      block[kCorrectionBytes + step * kGroupBytes + lane * kCodesPerByte + c % kCodesPerByte] =
          static_cast<uint8_t>(u);
      for (int i = 0; i < 4; ++i) {
        Sums::Correction& sum = correction[i * 64 / sizeof(Sums::Correction)];
        sum = static_cast<Sums::Correction>(sum +
                                            correction_of_tap<MergedTaps>(place, i / 2, i % 2) * u);
      }
    }
  }

  static bool supports(const ConvShape& shape, int highest) {
    return shape.kernel_height == 3 && shape.kernel_width == 3 && shape.stride == 1 &&
           highest <= MergedTaps::kHighest && Sums::fit(groups_of(shape), highest);
  }
};

}  // namespace
}  // namespace mbq
