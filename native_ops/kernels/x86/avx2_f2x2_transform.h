// Transforms of F(2x2,3x3) (Lavin & Gray 2016) in integers, for AVX2 and AVX-VNNI.
//
//   inputs:  V = B^T d B, B^T = (1,0,-1,0) (0,1,1,0) (0,-1,1,0) (0,1,0,-1)
//   weights: U = G w G^T,  G  = (1,0,0) (1,1,1) (1,-1,1) (0,0,1), the middle rows doubled
//   outputs: A^T M A,      A^T = (2,1,1,0) (0,1,-1,-2), which undoes that: 4 times the accumulator
//
// With codes of at most M, V of tap (1,1) is in 0..4M and the others are in -2M..2M, which an
// offset brings into uint8. What it adds to the outputs is known with the weights. |U| is at most
// 27 in the 4 middle taps, 9 in those with one middle row or column, 3 in the corners.

#pragma once

#include "avx2_winograd.h"

namespace mbq {
namespace {

constexpr int kTaps2 = 16;
constexpr int kMiddleTaps = 4;
// Taps 4 i + j in the order in which they are multiplied: corners, edges, middle.
constexpr int kTapOrder[kTaps2] = {0, 3, 12, 15, 1, 2, 4, 8, 7, 11, 13, 14, 5, 6, 9, 10};
// |U| of each.
constexpr int kMostU[kTaps2] = {3, 3, 3, 3, 9, 9, 9, 9, 9, 9, 9, 9, 27, 27, 27, 27};

constexpr int place_of_tap(int i, int j) {
  int place = 0;
  while (kTapOrder[place] != 4 * i + j) ++place;
  return place;
}

// ---- inputs ----

[[gnu::always_inline]] inline __m256i add(__m256i a, __m256i b) { return _mm256_add_epi8(a, b); }
[[gnu::always_inline]] inline __m128i add(__m128i a, __m128i b) { return _mm_add_epi8(a, b); }
[[gnu::always_inline]] inline __m256i sub(__m256i a, __m256i b) { return _mm256_sub_epi8(a, b); }
[[gnu::always_inline]] inline __m128i sub(__m128i a, __m128i b) { return _mm_sub_epi8(a, b); }
[[gnu::always_inline]] inline void load(const uint8_t* from, __m256i& to) {
  to = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}
[[gnu::always_inline]] inline void load(const uint8_t* from, __m128i& to) {
  to = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from));
}
[[gnu::always_inline]] inline void store(uint8_t* to, __m256i x) {
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), x);
}
[[gnu::always_inline]] inline void store(uint8_t* to, __m128i x) {
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), x);
}
[[gnu::always_inline]] inline void fill(int value, __m256i& to) {
  to = _mm256_set1_epi8(static_cast<char>(value));
}
[[gnu::always_inline]] inline void fill(int value, __m128i& to) {
  to = _mm_set1_epi8(static_cast<char>(value));
}

// A column of 4 codes, combined by the rows of B^T; Bytes is a vector of channels.
template <typename Bytes>
struct Column {
  Bytes of[4];

  [[gnu::always_inline]] Column(const uint8_t* codes, size_t row) {
    Bytes d0, d1, d2, d3;
    load(codes, d0);
    load(codes + row, d1);
    load(codes + 2 * row, d2);
    load(codes + 3 * row, d3);
    of[0] = sub(d0, d2);
    of[1] = add(d1, d2);
    of[2] = sub(d2, d1);
    of[3] = sub(d1, d3);
  }
};

// V [taps][tiles][tile_bytes] of one vector of channels of consecutive tiles. Byte arithmetic
// wraps, and what it ends with fits.
template <typename Bytes, int kOffset>
void transform_inputs(const TileMap& map, int first, int tiles, int channel, size_t tile_bytes,
                      uint8_t* v) {
  Bytes offset;
  fill(kOffset, offset);
  const size_t tap_bytes = tiles * tile_bytes;
  int x = first % map.columns;
  const uint8_t* row = map.first + static_cast<size_t>(first / map.columns) * 2 * map.row + channel;
  const uint8_t* at = row + x * 2 * map.pixel;
  v += channel;
  Column<Bytes> c0(at, map.row), c1(at + map.pixel, map.row);
  for (int t = 0; t < tiles; ++t, v += tile_bytes) {
    const Column<Bytes> c2(at + 2 * map.pixel, map.row), c3(at + 3 * map.pixel, map.row);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const Bytes middle1 = add(c1.of[i], offset), middle2 = add(c2.of[i], offset);
      store(v + place_of_tap(i, 0) * tap_bytes, sub(add(c0.of[i], offset), c2.of[i]));
      store(v + place_of_tap(i, 1) * tap_bytes, add(i == 1 ? c1.of[i] : middle1, c2.of[i]));
      store(v + place_of_tap(i, 2) * tap_bytes, sub(middle2, c1.of[i]));
      store(v + place_of_tap(i, 3) * tap_bytes, sub(middle1, c3.of[i]));
    }
    if (++x < map.columns) {
      at += 2 * map.pixel;
      c0 = c2;
      c1 = c3;
    } else if (t + 1 < tiles) {
      x = 0;
      at = row += 2 * map.row;
      c0 = Column<Bytes>(at, map.row);
      c1 = Column<Bytes>(at + map.pixel, map.row);
    }
  }
}

// ---- weights ----

constexpr int kG[4][3] = {{1, 0, 0}, {1, 1, 1}, {1, -1, 1}, {0, 0, 1}};
constexpr int kA[2][4] = {{2, 1, 1, 0}, {0, 1, -1, -2}};

// What an offset of 1 in V of tap `place` adds to output (row, column) for each unit of U.
constexpr int share_of_tap(int place, int row, int column) {
  const int i = kTapOrder[place] / 4, j = kTapOrder[place] % 4;
  return i == 1 && j == 1 ? 0 : kA[row][i] * kA[column][j];
}

int weight_of_tap(const int (&w)[3][3], int place) {
  int sum = 0;
  for (int y = 0; y < 3; ++y) {
    for (int x = 0; x < 3; ++x) {
      sum += kG[kTapOrder[place] / 4][y] * kG[kTapOrder[place] % 4][x] * w[y][x];
    }
  }
  return sum;
}

// ---- outputs ----

struct Pair {
  __m256i first, second;
};
[[gnu::always_inline]] inline Pair transform_outputs(__m256i m0, __m256i m1, __m256i m2,
                                                     __m256i m3) {
  const __m256i sum = _mm256_add_epi32(m1, m2), difference = _mm256_sub_epi32(m1, m2);
  return {_mm256_add_epi32(sum, _mm256_slli_epi32(m0, 1)),
          _mm256_sub_epi32(difference, _mm256_slli_epi32(m3, 1))};
}

// 8 outputs of a tile of sums [taps], `stride` vectors apart, into [2 * row + column].
[[gnu::always_inline]] inline void transform_sums(const __m256i* m, size_t stride, __m256i out[4]) {
  Pair column[4];
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    column[j] = transform_outputs(m[place_of_tap(0, j) * stride], m[place_of_tap(1, j) * stride],
                                  m[place_of_tap(2, j) * stride], m[place_of_tap(3, j) * stride]);
  }
  const Pair upper =
      transform_outputs(column[0].first, column[1].first, column[2].first, column[3].first);
  const Pair lower =
      transform_outputs(column[0].second, column[1].second, column[2].second, column[3].second);
  out[0] = upper.first;
  out[1] = upper.second;
  out[2] = lower.first;
  out[3] = lower.second;
}

}  // namespace
}  // namespace mbq
