// Multiplication and output transform of F(2x2,3x3): V x U -> pixels, without a store in between.
//
// With M(i,j) the sums over channels of U V of a tile, its 2x2 outputs are A^T M A where A^T has
// the rows (1,1,1,0) and (0,1,-1,-1) (Lavin & Gray 2016). Sums and products share accumulators: the
// four middle taps are accumulated first, one register each; then
//
//   rows:     (M(1,j), M(2,j)) -> (M(1,j) + M(2,j), M(1,j) - M(2,j)),   j = 1, 2
//             onto which M(0,j) and -M(3,j) are accumulated: output rows 0 and 1 of column tap j;
//   columns:  the same with j = 1 and 2 of each row: output columns 0 and 1 without taps j = 0, 3;
//   rows:     (y0, y1) -> (y0 + y1, y0 - y1) goes back to the rows before; 2 M(1,j) and 2 M(2,j),
//             j = 0, 3, are accumulated; and forth, which doubles everything: 2 M(0,j), -2 M(3,j).
//
// So four registers are a tile x 16 outputs from the first product to the finish. U holds the signs
// and factors. Everything is exact: int32 that wraps ends on the right value, 2 * 4 * acc (4 from
// the doubled weights).
//
// V has an offset of 128 in 15 taps; what that adds is in the start values of the middle taps.
//
// A tile at the right end of an odd map needs column 0 alone, one at the bottom row 0 alone: they
// take fewer registers and skip taps.

#include "avx512vnni_f2x2_transform.h"
#include "finish_avx512.h"

namespace mbq {
namespace {

inline constexpr int kStepBytes = 4 * 64;       // of U: 4 taps, 16 outputs, 4 channels
inline constexpr int kStartBytes = 4 * 64;      // start values of the taps of the first step
inline constexpr float kF2x2Factor = 1.0f / 8;  // accumulators hold 8 times the sum

// V and U of some tiles and a block of outputs, and where the sums go.
struct TileGroup {
  const uint8_t* v;  // of the first tile
  size_t tap_stride, chunk_stride;
  int groups;        // of 4 channels
  const uint8_t* u;  // of the block of outputs: start values, then U
  __m512i* sums;     // 8 times the accumulators of the pixels of each tile, by rows
};

// The compiler would spill registers around the intrinsic.
[[gnu::always_inline]] inline void dot(__m512i& acc, const uint8_t* v, __m512i u) {
  __m512i codes;
  asm("vpbroadcastd %[v], %[codes]\n\t"
      "vpdpbusd %[u], %[codes], %[acc]"
      : [acc] "+v"(acc), [codes] "=&v"(codes)
      : [v] "m"(*reinterpret_cast<const uint32_t (*)[1]>(v)), [u] "v"(u));
}

[[gnu::always_inline]] inline void butterfly(__m512i& a, __m512i& b) {
  const __m512i sum = _mm512_add_epi32(a, b);
  b = _mm512_sub_epi32(a, b);
  a = sum;
}

[[gnu::always_inline]] inline void twice(__m512i& a) { a = _mm512_add_epi32(a, a); }

// Accumulators of tiles that need all outputs, column 0, row 0, and output (0, 0) alone.
template <int kFull, int kRight, int kBottom, int kCorner>
struct Tiles {
  static constexpr int kTiles = kFull + kRight + kBottom + kCorner;
  static constexpr int at_least_1(int n) { return n > 0 ? n : 1; }
  __m512i full[at_least_1(kFull)][4];
  __m512i right[at_least_1(kRight)][2];
  __m512i bottom[at_least_1(kBottom)][2];
  __m512i corner[at_least_1(kCorner)];

  [[gnu::always_inline]] void start(const uint8_t* u) {
    __m512i from[4];
    for (int t = 0; t < 4; ++t) from[t] = _mm512_load_si512(u + 64 * t);
#pragma GCC unroll 8
    for (int k = 0; k < kFull; ++k) {
#pragma GCC unroll 4
      for (int t = 0; t < 4; ++t) full[k][t] = from[t];
    }
#pragma GCC unroll 8
    for (int k = 0; k < kRight; ++k) {
      right[k][0] = _mm512_add_epi32(from[0], from[2]);
      right[k][1] = _mm512_add_epi32(from[1], from[3]);
    }
#pragma GCC unroll 8
    for (int k = 0; k < kBottom; ++k) {
      bottom[k][0] = _mm512_add_epi32(from[0], from[1]);
      bottom[k][1] = _mm512_add_epi32(from[2], from[3]);
    }
    if constexpr (kCorner > 0) {
      corner[0] =
          _mm512_add_epi32(_mm512_add_epi32(from[0], from[1]), _mm512_add_epi32(from[2], from[3]));
    }
  }

  // Tap t of step kStep of kTapOrder: row 1, 2, 1, 2 or 0, 3, 0, 3; column 1, 1, 2, 2 or 0, 0,
  // 3, 3.
  template <int kStep, int kBytes>
  [[gnu::always_inline]] void multiply(int t, const uint8_t* v, __m512i u) {
    const bool needs_row_1 = kStep % 2 == 1 && t % 2 == 1;  // tap row 3
    const bool needs_column_1 = kStep >= 2 && t >= 2;       // tap column 3
#pragma GCC unroll 8
    for (int k = 0; k < kFull; ++k) dot(full[k][t], v + k * kBytes, u);
    v += kFull * kBytes;
    if (!needs_column_1) {
#pragma GCC unroll 8
      for (int k = 0; k < kRight; ++k) dot(right[k][t % 2], v + k * kBytes, u);
    }
    v += kRight * kBytes;
    if (!needs_row_1) {
#pragma GCC unroll 8
      for (int k = 0; k < kBottom; ++k) dot(bottom[k][t / 2], v + k * kBytes, u);
    }
    v += kBottom * kBytes;
    if (!needs_row_1 && !needs_column_1) {
      if constexpr (kCorner > 0) dot(corner[0], v, u);
    }
  }

  template <int kStep, int kBytes>
  [[gnu::always_inline]] const uint8_t* multiply_all(const TileGroup& group, const uint8_t* u) {
    const size_t stride = group.tap_stride;
    const uint8_t* v = group.v + 4 * kStep * stride;
    for (int left = group.groups; left > 0; left -= kBytes / 4, v += group.chunk_stride) {
      const uint8_t *v0 = v, *v1 = v0 + stride, *v2 = v1 + stride, *v3 = v2 + stride;
      const uint8_t* const end = v + 4 * (left < kBytes / 4 ? left : kBytes / 4);
      while (v0 != end) {
        // Opaque, or the compiler keeps an address for each tile of each tap.
        asm("" : "+r"(v0), "+r"(v1), "+r"(v2), "+r"(v3));
        multiply<kStep, kBytes>(0, v0, _mm512_load_si512(u));
        multiply<kStep, kBytes>(1, v1, _mm512_load_si512(u + 64));
        multiply<kStep, kBytes>(2, v2, _mm512_load_si512(u + 128));
        multiply<kStep, kBytes>(3, v3, _mm512_load_si512(u + 192));
        v0 += 4, v1 += 4, v2 += 4, v3 += 4, u += kStepBytes;
      }
    }
    return u;
  }

  [[gnu::always_inline]] void rows() {
#pragma GCC unroll 8
    for (int k = 0; k < kFull; ++k) {
      butterfly(full[k][0], full[k][1]);
      butterfly(full[k][2], full[k][3]);
    }
#pragma GCC unroll 8
    for (int k = 0; k < kRight; ++k) butterfly(right[k][0], right[k][1]);
  }

  [[gnu::always_inline]] void columns_and_rows() {
#pragma GCC unroll 8
    for (int k = 0; k < kFull; ++k) {
      butterfly(full[k][0], full[k][2]);
      butterfly(full[k][1], full[k][3]);
    }
#pragma GCC unroll 8
    for (int k = 0; k < kBottom; ++k) {
      butterfly(bottom[k][0], bottom[k][1]);
      twice(bottom[k][0]);
      twice(bottom[k][1]);
    }
    if constexpr (kCorner > 0) twice(corner[0]);
    rows();
  }

  [[gnu::always_inline]] void store(__m512i* to) const {
#pragma GCC unroll 8
    for (int k = 0; k < kFull; ++k, to += 4) {
      to[0] = full[k][0];
      to[1] = full[k][2];
      to[2] = full[k][1];
      to[3] = full[k][3];
    }
#pragma GCC unroll 8
    for (int k = 0; k < kRight; ++k, to += 2) to[0] = right[k][0], to[1] = right[k][1];
#pragma GCC unroll 8
    for (int k = 0; k < kBottom; ++k, to += 2) to[0] = bottom[k][0], to[1] = bottom[k][1];
    if constexpr (kCorner > 0) to[0] = corner[0];
  }
};

// Sanitizers see nothing of what inline assembly reads, and take minutes for all these registers.
template <typename Tiles, int kBytes>
[[gnu::no_sanitize("address", "undefined")]] void multiply_tiles(const TileGroup& group) {
  Tiles tiles;
  tiles.start(group.u);
  const uint8_t* u = group.u + kStartBytes;
  u = tiles.template multiply_all<0, kBytes>(group, u);
  tiles.rows();
  u = tiles.template multiply_all<1, kBytes>(group, u);
  tiles.columns_and_rows();
  u = tiles.template multiply_all<2, kBytes>(group, u);
  tiles.rows();
  tiles.template multiply_all<3, kBytes>(group, u);
  tiles.store(group.sums);
}

// Pixel of a tile's top left output.
struct TilePlace {
  int16_t y, x;
};

// The finish of groups of a block of outputs.
struct TileFinish {
  Finish finish;
  int height, width;  // of the output image
  bool ragged;        // tiles may reach out of the image, or fewer than 16 outputs are left

  template <bool kDirect>
  [[gnu::always_inline]] void pixel(__m512i sums, int y, int x) const {
    if (y < height && x < width) finish.operator()<kDirect>(sums, y, x);
  }

  // count: tiles that have all outputs, column 0, row 0, output (0, 0).
  template <bool kDirect>
  void run(const __m512i* sums, const TilePlace* place, const int (&count)[4]) const {
    for (int k = 0; k < count[0]; ++k, sums += 4, ++place) {
      if (!ragged) {
        finish.square<kDirect>(sums[0], sums[1], sums[2], sums[3], place->y, place->x);
        continue;
      }
      for (int i = 0; i < 4; ++i) pixel<kDirect>(sums[i], place->y + i / 2, place->x + i % 2);
    }
    for (int kind = 1; kind < 4; ++kind) {
      for (int k = 0; k < count[kind]; ++k, ++place) {
        pixel<kDirect>(*sums++, place->y, place->x);
        if (kind == 1) pixel<kDirect>(*sums++, place->y + 1, place->x);
        if (kind == 2) pixel<kDirect>(*sums++, place->y, place->x + 1);
      }
    }
  }
};

}  // namespace
}  // namespace mbq
