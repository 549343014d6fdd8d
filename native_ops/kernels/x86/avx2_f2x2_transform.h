// Transforms of F(2x2,3x3) (Lavin & Gray 2016) in integers, for AVX2 and AVX-VNNI.
//
//   inputs:  V = B^T d B, B^T = (1,0,-1,0) (0,1,1,0) (0,-1,1,0) (0,1,0,-1)
//   weights: U = G w G^T,  G  = (g,0,0) (1,1,1) (1,-1,1) (0,0,h), the middle rows doubled
//   outputs: A^T M A,      A^T = (2/g,1,1,0) (0,1,-1,-2/h): 4 times the accumulator
//
// With codes of at most M, V of tap (1,1) is in 0..4M and the others are in -2M..2M, which an
// offset brings into uint8. What it adds to the outputs is known with the weights.

#pragma once

#include "avx2_winograd.h"

namespace mbq {
namespace {

constexpr int kTaps2 = 16;

// ---- inputs ----

// Channels of a pixel, 32 or 16.
struct Bytes32 {
  __m256i v;
  [[gnu::always_inline]] static Bytes32 load(const uint8_t* from) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from))};
  }
  [[gnu::always_inline]] static Bytes32 fill(int value) {
    return {_mm256_set1_epi8(static_cast<char>(value))};
  }
  [[gnu::always_inline]] void store(uint8_t* to) const {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), v);
  }
};
[[gnu::always_inline]] inline Bytes32 add(Bytes32 a, Bytes32 b) {
  return {_mm256_add_epi8(a.v, b.v)};
}
[[gnu::always_inline]] inline Bytes32 sub(Bytes32 a, Bytes32 b) {
  return {_mm256_sub_epi8(a.v, b.v)};
}

struct Bytes16 {
  __m128i v;
  [[gnu::always_inline]] static Bytes16 load(const uint8_t* from) {
    return {_mm_loadu_si128(reinterpret_cast<const __m128i*>(from))};
  }
  [[gnu::always_inline]] static Bytes16 fill(int value) {
    return {_mm_set1_epi8(static_cast<char>(value))};
  }
  [[gnu::always_inline]] void store(uint8_t* to) const {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), v);
  }
};
[[gnu::always_inline]] inline Bytes16 add(Bytes16 a, Bytes16 b) { return {_mm_add_epi8(a.v, b.v)}; }
[[gnu::always_inline]] inline Bytes16 sub(Bytes16 a, Bytes16 b) { return {_mm_sub_epi8(a.v, b.v)}; }

// A column of 4 codes, combined by the rows of B^T.
template <typename Bytes>
struct Column {
  Bytes of[4];

  Column() = default;
  [[gnu::always_inline]] Column(const uint8_t* codes, size_t row) {
    const Bytes d0 = Bytes::load(codes), d1 = Bytes::load(codes + row);
    const Bytes d2 = Bytes::load(codes + 2 * row), d3 = Bytes::load(codes + 3 * row);
    of[0] = sub(d0, d2);
    of[1] = add(d1, d2);
    of[2] = sub(d2, d1);
    of[3] = sub(d1, d3);
  }
};

// V of one vector of tiles or channels from their columns. Byte arithmetic wraps, and what it ends
// with fits. Taps says at which place a tap is.
template <typename Taps, typename Bytes>
[[gnu::always_inline]] inline void store_taps(const Column<Bytes>& c0, const Column<Bytes>& c1,
                                              const Column<Bytes>& c2, const Column<Bytes>& c3,
                                              Bytes offset, size_t tap_bytes, uint8_t* v) {
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    const Bytes middle1 = add(c1.of[i], offset), middle2 = add(c2.of[i], offset);
    sub(add(c0.of[i], offset), c2.of[i]).store(v + Taps::place(i, 0) * tap_bytes);
    add(i == 1 ? c1.of[i] : middle1, c2.of[i]).store(v + Taps::place(i, 1) * tap_bytes);
    sub(middle2, c1.of[i]).store(v + Taps::place(i, 2) * tap_bytes);
    sub(middle1, c3.of[i]).store(v + Taps::place(i, 3) * tap_bytes);
  }
}

// V [taps][tiles][tile_bytes] of one vector of channels of consecutive tiles.
template <typename Taps, typename Bytes>
void transform_inputs(const TileMap& map, int first, int tiles, int channel, size_t tile_bytes,
                      uint8_t* v) {
  const Bytes offset = Bytes::fill(Taps::kOffset);
  int x = first % map.columns;
  const uint8_t* row = map.first + static_cast<size_t>(first / map.columns) * 2 * map.row + channel;
  const uint8_t* at = row + x * 2 * map.pixel;
  v += channel;
  Column<Bytes> c0(at, map.row), c1(at + map.pixel, map.row);
  for (int t = 0; t < tiles; ++t, v += tile_bytes) {
    const Column<Bytes> c2(at + 2 * map.pixel, map.row), c3(at + 3 * map.pixel, map.row);
    store_taps<Taps>(c0, c1, c2, c3, offset, tiles * tile_bytes, v);
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

// The same for pixels of 16 bytes: a vector holds two neighbouring columns, then two neighbouring
// tiles.
template <typename Taps>
void transform_narrow(const TileMap& map, int first, int tiles, uint8_t* v) {
  constexpr size_t kPixel = 16;
  const size_t tap_bytes = tiles * kPixel;
  const Bytes32 offset = Bytes32::fill(Taps::kOffset);
  int x = first % map.columns;
  const uint8_t* row = map.first + static_cast<size_t>(first / map.columns) * 2 * map.row;
  for (int t = 0; t < tiles;) {
    const uint8_t* const at = row + x * 2 * kPixel;
    const bool two = t + 1 < tiles && x + 1 < map.columns;
    const Column<Bytes32> p0(at, map.row), p1(at + 2 * kPixel, map.row);
    if (two) {
      const Column<Bytes32> p2(at + 4 * kPixel, map.row);
      Column<Bytes32> c0, c1, c2, c3;
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        c0.of[i].v = _mm256_permute2x128_si256(p0.of[i].v, p1.of[i].v, 0x20);
        c1.of[i].v = _mm256_permute2x128_si256(p0.of[i].v, p1.of[i].v, 0x31);
        c2.of[i].v = _mm256_permute2x128_si256(p1.of[i].v, p2.of[i].v, 0x20);
        c3.of[i].v = _mm256_permute2x128_si256(p1.of[i].v, p2.of[i].v, 0x31);
      }
      store_taps<Taps>(c0, c1, c2, c3, offset, tap_bytes, v);
    } else {
      Column<Bytes16> c0, c1, c2, c3;
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        c0.of[i].v = _mm256_castsi256_si128(p0.of[i].v);
        c1.of[i].v = _mm256_extracti128_si256(p0.of[i].v, 1);
        c2.of[i].v = _mm256_castsi256_si128(p1.of[i].v);
        c3.of[i].v = _mm256_extracti128_si256(p1.of[i].v, 1);
      }
      store_taps<Taps>(c0, c1, c2, c3, Bytes16::fill(Taps::kOffset), tap_bytes, v);
    }
    const int done = two ? 2 : 1;
    t += done;
    v += done * kPixel;
    x += done;
    if (x == map.columns) {
      x = 0;
      row += 2 * map.row;
    }
  }
}

// What both algorithms for F(2x2,3x3) have in common. Taps: kOrder, place, kOffset, kG and kA.
template <typename Taps>
struct F2x2Inputs {
  static constexpr int kOut = 2, kTaps = kTaps2;

  static size_t tile_bytes(const ConvShape& shape) { return round_up(shape.inputs, 16); }

  static void transform(const TileMap& map, int first, int tiles, int channels, size_t tile_bytes,
                        uint8_t* v) {
    if (map.pixel == 16) {
      transform_narrow<Taps>(map, first, tiles, v);
      return;
    }
    int c = 0;
    for (; channels - c > 16; c += 32) {
      transform_inputs<Taps, Bytes32>(map, first, tiles, c, tile_bytes, v);
    }
    if (channels > c) transform_inputs<Taps, Bytes16>(map, first, tiles, c, tile_bytes, v);
  }
};

// ---- weights ----

template <typename Taps>
int weight_of_tap(const int (&w)[3][3], int place) {
  int sum = 0;
  for (int y = 0; y < 3; ++y) {
    for (int x = 0; x < 3; ++x) {
      sum += Taps::kG[Taps::kOrder[place] / 4][y] * Taps::kG[Taps::kOrder[place] % 4][x] * w[y][x];
    }
  }
  return sum;
}

// What output (row, column) lacks for each unit of U, because of the offset in V of tap `place`.
template <typename Taps>
int correction_of_tap(int place, int row, int column) {
  const int i = Taps::kOrder[place] / 4, j = Taps::kOrder[place] % 4;
  return i == 1 && j == 1 ? 0 : -Taps::kOffset * Taps::kA[row][i] * Taps::kA[column][j];
}

constexpr size_t kCorrectionBytes = 4 * 64;  // of 16 outputs, before their U

// ---- outputs ----

// The pixels (y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1), of which some may be outside.
template <bool kDirect>
[[gnu::always_inline]] inline void finish_square(const Finish& finish, const __m256i (&low)[4],
                                                 const __m256i (&high)[4], const ConvShape& shape,
                                                 int y, int x) {
  const bool right = x + 1 < shape.out_width(), below = y + 1 < shape.out_height();
  const auto pixel = [&](int i) __attribute__((always_inline)) {
    return Accumulators{low[i], high[i], y + i / 2, x + i % 2};
  };
  if (right) {
    finish.operator()<kDirect>(pixel(0), pixel(1));
    if (below) finish.operator()<kDirect>(pixel(2), pixel(3));
  } else {
    finish.operator()<kDirect>(pixel(0));
    if (below) finish.operator()<kDirect>(pixel(2));
  }
}

}  // namespace
}  // namespace mbq
