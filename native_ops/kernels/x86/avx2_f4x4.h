// Winograd F(4x4,3x3) in exact integers for AVX2 and AVX-VNNI: 36 products for 16 outputs where the
// direct sum has 144. It serves codes that are too wide for F(2x2) in bytes: operands are int16.
//
// With the points 0, 1, -1, 2, -2 and infinity, and weights multiplied by 24 along each axis,
//   24 G: (6,0,0) (-4,-4,-4) (-4,4,-4) (1,2,4) (1,-2,4) (0,0,24)
//   B^T:  (4,0,-5,0,1,0) (0,-4,-4,1,1,0) (0,4,-4,-1,1,0) (0,-2,-1,2,1,0) (0,2,-1,-2,1,0)
//         (0,4,0,-5,0,1)
//   A^T:  (1,1,1,1,1,0) (0,1,-1,2,-2,0) (0,1,1,4,4,0) (0,1,-1,8,-8,1)
// V = B^T d B is within [-32, 68] * 255 and U within 24 * 24 * 3: both fit int16. A^T M A is 576
// times the accumulator modulo 2^32; the inverse of 9 makes it 64 times, which fits int32.

#pragma once

#include "avx2_winograd.h"

namespace mbq {
namespace {

constexpr int kIn4 = 6, kOut4 = 4;  // sides of a tile: of inputs and taps, of outputs
constexpr int kTaps4 = kIn4 * kIn4;
constexpr int kInverse9 = 954437177;  // 9 * kInverse9 = 1 modulo 2^32

struct Words6 {
  __m256i at[kIn4];
};

// B^T.
[[gnu::always_inline]] inline Words6 transform_words(const Words6& d) {
  const __m256i a = _mm256_sub_epi16(d.at[4], _mm256_slli_epi16(d.at[2], 2));
  const __m256i b = _mm256_sub_epi16(d.at[3], _mm256_slli_epi16(d.at[1], 2));
  const __m256i c = _mm256_sub_epi16(d.at[4], d.at[2]);
  const __m256i e = _mm256_slli_epi16(_mm256_sub_epi16(d.at[3], d.at[1]), 1);
  const __m256i first = _mm256_slli_epi16(_mm256_sub_epi16(d.at[0], d.at[2]), 2);
  const __m256i last = _mm256_sub_epi16(d.at[5], d.at[3]);
  return {{_mm256_add_epi16(first, c), _mm256_add_epi16(a, b), _mm256_sub_epi16(a, b),
           _mm256_add_epi16(c, e), _mm256_sub_epi16(c, e),
           _mm256_sub_epi16(last, _mm256_slli_epi16(e, 1))}};
}

// A^T.
struct Rows4 {
  __m256i at[kOut4];
};
[[gnu::always_inline]] inline Rows4 transform_six(const __m256i* m, size_t stride) {
  const __m256i m1 = m[stride], m2 = m[2 * stride], m3 = m[3 * stride], m4 = m[4 * stride];
  const __m256i sum1 = _mm256_add_epi32(m1, m2), difference1 = _mm256_sub_epi32(m1, m2);
  const __m256i sum2 = _mm256_add_epi32(m3, m4), difference2 = _mm256_sub_epi32(m3, m4);
  return {{_mm256_add_epi32(m[0], _mm256_add_epi32(sum1, sum2)),
           _mm256_add_epi32(difference1, _mm256_slli_epi32(difference2, 1)),
           _mm256_add_epi32(sum1, _mm256_slli_epi32(sum2, 2)),
           _mm256_add_epi32(_mm256_add_epi32(difference1, m[5 * stride]),
                            _mm256_slli_epi32(difference2, 3))}};
}

// 8 outputs of a tile of sums [taps], `stride` vectors apart: accumulators [row][column].
[[gnu::always_inline]] inline void transform_tile(const __m256i* m, size_t stride,
                                                  __m256i out[kOut4 * kOut4]) {
  const __m256i inverse = _mm256_set1_epi32(kInverse9);
  __m256i rows[kOut4][kIn4];
#pragma GCC unroll 6
  for (int j = 0; j < kIn4; ++j) {
    const Rows4 column = transform_six(m + j * stride, kIn4 * stride);
    for (int r = 0; r < kOut4; ++r) rows[r][j] = column.at[r];
  }
#pragma GCC unroll 4
  for (int r = 0; r < kOut4; ++r) {
    const Rows4 row = transform_six(rows[r], 1);
    for (int c = 0; c < kOut4; ++c) {
      out[r * kOut4 + c] = _mm256_srai_epi32(_mm256_mullo_epi32(row.at[c], inverse), 6);
    }
  }
}

template <bool kDirect, int T>
void multiply_group4(const ConvCall& call, const WinogradPlan& plan, const uint8_t* v,
                     const uint8_t* u, int first, const Finish& finish) {
  alignas(32) int32_t sums[kTaps4 * T * kOutputBlock];
  const uint8_t* from[T];
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t) from[t] = v + t * plan.tile_bytes;
  const int pairs = (call.shape.inputs + 1) / 2;
  const Window window{1, 1, pairs, 0, 0};
  for (int tap = 0; tap < kTaps4; ++tap) {
    sum_windows<Words, T>(from, window, u, 0, sums + tap * T * kOutputBlock);
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) from[t] += T * plan.tile_bytes;
    u += pairs * kGroupBytes;
  }
  const int height = call.shape.out_height(), width = call.shape.out_width();
  int y = first / plan.columns * kOut4, x = first % plan.columns * kOut4;
  for (int t = 0; t < T; ++t) {
    const __m256i* const m = reinterpret_cast<const __m256i*>(sums) + t * kVectors;
    __m256i low[kOut4 * kOut4], high[kOut4 * kOut4];
    transform_tile(m, T * kVectors, low);
    transform_tile(m + 1, T * kVectors, high);
    const int rows = height - y < kOut4 ? height - y : kOut4;
    const int columns = width - x < kOut4 ? width - x : kOut4;
    const auto pixel = [&](int r, int c) __attribute__((always_inline)) {
      return Accumulators{low[r * kOut4 + c], high[r * kOut4 + c], y + r, x + c};
    };
    for (int r = 0; r < rows; ++r) {
      int c = 0;
      for (; c + 2 <= columns; c += 2) finish.operator()<kDirect>(pixel(r, c), pixel(r, c + 1));
      if (c < columns) finish.operator()<kDirect>(pixel(r, c));
    }
    x += kOut4;
    if (x >= width) {
      x = 0;
      y += kOut4;
    }
  }
}

struct F4x4 {
  static constexpr int kOut = kOut4, kTaps = kTaps4;

  template <bool kDirect>
  static constexpr MultiplyGroup kMultiplyGroup[kTilePixels] = {
      multiply_group4<kDirect, 1>, multiply_group4<kDirect, 2>, multiply_group4<kDirect, 3>,
      multiply_group4<kDirect, 4>, multiply_group4<kDirect, 5>, multiply_group4<kDirect, 6>};

  static size_t tile_bytes(const ConvShape& shape) { return round_up(shape.inputs, 16) * 2; }

  // U [taps][pairs][16][2] of int16.
  static size_t block_bytes(const ConvShape& shape) {
    return static_cast<size_t>(kTaps) * ((shape.inputs + 1) / 2) * kGroupBytes;
  }

  static void transform(const TileMap& map, int first, int tiles, int channels, size_t tile_bytes,
                        uint8_t* v) {
    const size_t tap_bytes = tiles * tile_bytes;
    for (int t = 0; t < tiles; ++t, v += tile_bytes) {
      const int y = (first + t) / map.columns * kOut, x = (first + t) % map.columns * kOut;
      const uint8_t* row[kIn4];
      for (int i = 0; i < kIn4; ++i) {
        // Rows behind the border only enter outputs that are not written.
        const size_t at = y + i < map.last_row ? y + i : map.last_row;
        row[i] = map.first + at * map.row + x * map.pixel;
      }
      for (int c = 0; c < channels; c += 16) {
        Words6 down[kIn4];
        for (int j = 0; j < kIn4; ++j) {
          Words6 d;
          for (int i = 0; i < kIn4; ++i) {
            const uint8_t* const from = row[i] + j * map.pixel + c;
            d.at[i] = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
          }
          down[j] = transform_words(d);
        }
        uint8_t* to = v + c * 2;
        for (int i = 0; i < kIn4; ++i) {
          Words6 d;
          for (int j = 0; j < kIn4; ++j) d.at[j] = down[j].at[i];
          const Words6 taps = transform_words(d);
          for (int j = 0; j < kIn4; ++j, to += tap_bytes) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), taps.at[j]);
          }
        }
      }
    }
  }

  // Adds the weights of channel c and output `lane` to a block.
  static void transform_weights(const ConvShape& shape, const int (&w)[3][3], int c, int lane,
                                uint8_t* block) {
    static constexpr int kG24[kIn4][3] = {{6, 0, 0}, {-4, -4, -4}, {-4, 4, -4},
                                          {1, 2, 4}, {1, -2, 4},   {0, 0, 24}};
    const size_t pairs = (shape.inputs + 1) / 2;
    int16_t* to = reinterpret_cast<int16_t*>(block) + c / 2 * kGroupBytes / 2 + lane * 2 + c % 2;
    for (int i = 0; i < kIn4; ++i) {
      int down[3];
      for (int x = 0; x < 3; ++x) {
        down[x] = kG24[i][0] * w[0][x] + kG24[i][1] * w[1][x] + kG24[i][2] * w[2][x];
      }
      for (int j = 0; j < kIn4; ++j, to += pairs * kGroupBytes / 2) {
        *to = static_cast<int16_t>(kG24[j][0] * down[0] + kG24[j][1] * down[1] +
                                   kG24[j][2] * down[2]);
      }
    }
  }

  // 64 times the accumulator has to fit int32.
  static bool supports(const ConvShape& shape, int highest) {
    return shape.kernel_height == 3 && shape.kernel_width == 3 && shape.stride == 1 &&
           highest <= 255 && int64_t{64} * 27 * shape.inputs * highest <= INT32_MAX;
  }
};

}  // namespace
}  // namespace mbq
