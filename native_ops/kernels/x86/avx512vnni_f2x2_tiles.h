// Multiplication and output transform of F(2x2,3x3): V x U -> pixels, without a store in between.
//
// With M(i,j) the sums over channels of U V of a tile, its 2x2 outputs are A^T M A where A^T has
// the rows (1,1,1,0) and (0,1,-1,-1) (Lavin & Gray 2016). Rows and columns 0 and 3 of M belong to
// one row or column of outputs each; 1 and 2 are added for output 0 and subtracted for output 1.
// Sums and products share accumulators, which go back and forth by that butterfly,
// (a, b) -> (a + b, a - b), whose inverse is itself halved:
//
//   step 0  accumulates  M(0,j), -M(3,j),  j = 1, 2:    rows of outputs, columns of taps;
//           butterfly of rows, which is the inverse times 2
//   step 1  accumulates 2 M(1,j), 2 M(2,j), j = 1, 2:   rows of taps, columns of taps;
//           butterfly of columns
//   step 2  accumulates 2 M(1,j), 2 M(2,j), j = 0, 3:   rows of taps, columns of outputs;
//           butterfly of rows
//   step 3  accumulates 2 M(0,j), -2 M(3,j), j = 0, 3:  rows and columns of outputs,
//
// where j = 3 is negative as well. So four registers are a tile x 16 outputs from the first product
// to the finish. U holds the signs and factors. Everything is exact: int32 that wraps ends on the
// right value, 2 * 4 * acc (4 from the doubled weights).
//
// A register holds both columns j of 8 outputs, side by side: 8 bytes of V, 4 channels of two taps,
// are broadcast and multiplied with two vectors of U, which halves the loads. Rows are in different
// registers.
//
// V has an offset of 128 in 15 taps; what that adds is taken away by the start values of step 0.
//
// A tile at the bottom of a map of odd height needs row 0 alone: it takes two registers and skips
// the taps i = 3.

#include "avx512vnni_f2x2_transform.h"
#include "avx512vnni_unpack.h"
#include "finish_avx512.h"

namespace mbq {
namespace {

inline constexpr int kStepBytes = 4 * 64;       // of U: [pair of taps][half of 16 outputs]
inline constexpr int kStartBytes = 4 * 64;      // start values, likewise
inline constexpr float kF2x2Factor = 1.0f / 8;  // accumulators hold 8 times the sum

// Which of 16 outputs is in dwords 2 i and 2 i + 1 of a half: shuffles within 128-bit lanes then
// separate the columns.
constexpr int output_of(int half, int i) { return i / 2 * 4 + half * 2 + i % 2; }

// V and U of some tiles and a block of outputs, and where the sums go.
struct TileGroup {
  const uint8_t* v;  // of the first tile
  size_t stride, chunk_stride;
  int lanes;             // of 16 channels
  const uint8_t* start;  // values of the block of outputs
  const uint8_t* u;      // of the block of outputs
  __m512i* sums;         // 8 times the accumulators of the pixels of each tile, by rows
  Ahead ahead;           // fetched 8 times for each chunk

  static int fetches(int chunks) { return 8 * chunks; }
};

// Both halves of the outputs of one pair of taps. The compiler would spill registers around
// intrinsics.
[[gnu::always_inline]] inline void dot(__m512i (&acc)[2], const uint8_t* v, __m512i u0,
                                       __m512i u1) {
  __m512i codes;
  asm("vpbroadcastq %[v], %[codes]\n\t"
      "vpdpbusd %[u0], %[codes], %[acc0]\n\t"
      "vpdpbusd %[u1], %[codes], %[acc1]"
      : [acc0] "+v"(acc[0]), [acc1] "+v"(acc[1]), [codes] "=&v"(codes)
      : [v] "m"(*reinterpret_cast<const uint64_t (*)[1]>(v)), [u0] "v"(u0), [u1] "v"(u1));
}

// (a, b) -> (a + b, a - b) of two registers, and of neighbours in one; in place, for the same
// reason.
[[gnu::always_inline]] inline void butterfly(__m512i& a, __m512i& b) {
  __m512i before;
  asm("vmovdqa64 %[a], %[before]\n\t"
      "vpaddd %[b], %[a], %[a]\n\t"
      "vpsubd %[b], %[before], %[b]"
      : [a] "+v"(a), [b] "+v"(b), [before] "=&v"(before));
}
[[gnu::always_inline]] inline void butterfly(__m512i& ab) {
  const __mmask16 even = 0x5555, odd = 0xaaaa;
  __m512i ba;
  asm("vpshufd $0xb1, %[ab], %[ba]\n\t"
      "vpsubd %[ab], %[ba], %[ab]%{%[odd]%}\n\t"
      "vpaddd %[ba], %[ab], %[ab]%{%[even]%}"
      : [ab] "+v"(ab), [ba] "=&v"(ba)
      : [odd] "Yk"(odd), [even] "Yk"(even));
}

// Accumulators of tiles that need all outputs, and of tiles that need row 0.
template <int kFull, int kTop>
struct Tiles {
  __m512i full[kFull][2][2];  // [row][half of the outputs]
  __m512i top[kTop > 0 ? kTop : 1][2];

  [[gnu::always_inline]] void start(const uint8_t* u) {
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const __m512i row0 = _mm512_load_si512(u + 64 * half);
      const __m512i row1 = _mm512_load_si512(u + 128 + 64 * half);
#pragma GCC unroll 8
      for (int k = 0; k < kFull; ++k) full[k][0][half] = row0, full[k][1][half] = row1;
#pragma GCC unroll 8
      for (int k = 0; k < kTop; ++k) top[k][half] = row0;
    }
  }

  template <int kStep, int kBytes>
  [[gnu::always_inline]] void multiply(int pair, const uint8_t* v, const uint8_t* u) {
    const __m512i u0 = _mm512_load_si512(u), u1 = _mm512_load_si512(u + 64);
#pragma GCC unroll 8
    for (int k = 0; k < kFull; ++k) dot(full[k][pair], v + k * kBytes, u0, u1);
    if ((kStep == 0 || kStep == 3) && pair == 1) return;  // i = 3
#pragma GCC unroll 8
    for (int k = 0; k < kTop; ++k) dot(top[k], v + (kFull + k) * kBytes, u0, u1);
  }

  template <int kStep, int kBytes>
  [[gnu::always_inline]] const uint8_t* multiply_all(TileGroup& group, const uint8_t* u) {
    const uint8_t* v = group.v;
    int left = group.lanes;
    do {
      const int bytes = left < kBytes / 16 ? 16 * left : kBytes;
      for (int half = 0; half < 2; ++half) {
        group.ahead.fetch();
        const uint8_t* v0 = v + stream_of(kStep, 0, half) * group.stride;
        const uint8_t* v1 = v0 + group.stride;
        const uint8_t* const end = v0 + bytes;
        do {
          // Opaque, or the compiler keeps an address for each tile.
          asm("" : "+r"(v0), "+r"(v1));
          multiply<kStep, kBytes>(0, v0, u);
          multiply<kStep, kBytes>(1, v1, u + 128);
          v0 += 8, v1 += 8, u += kStepBytes;
        } while (v0 != end);
      }
      left -= kBytes / 16;
      v += group.chunk_stride;
    } while (left > 0);
    return u;
  }

  [[gnu::always_inline]] void rows() {
#pragma GCC unroll 8
    for (int k = 0; k < kFull; ++k) {
      butterfly(full[k][0][0], full[k][1][0]);
      butterfly(full[k][0][1], full[k][1][1]);
    }
  }

  [[gnu::always_inline]] void columns() {
#pragma GCC unroll 8
    for (int k = 0; k < kFull; ++k) {
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) butterfly(full[k][r / 2][r % 2]);
    }
#pragma GCC unroll 8
    for (int k = 0; k < kTop; ++k) butterfly(top[k][0]), butterfly(top[k][1]);
  }

  // What two butterflies of rows do to the others.
  [[gnu::always_inline]] void double_top() {
#pragma GCC unroll 8
    for (int k = 0; k < kTop; ++k) {
      top[k][0] = _mm512_add_epi32(top[k][0], top[k][0]);
      top[k][1] = _mm512_add_epi32(top[k][1], top[k][1]);
    }
  }

  [[gnu::always_inline]] void store(__m512i* to) const {
#pragma GCC unroll 8
    for (int k = 0; k < kFull; ++k) {
#pragma GCC unroll 4
      for (int r = 0; r < 4; ++r) *to++ = full[k][r / 2][r % 2];
    }
#pragma GCC unroll 8
    for (int k = 0; k < kTop; ++k) to[2 * k] = top[k][0], to[2 * k + 1] = top[k][1];
  }
};

// Sanitizers see nothing of what inline assembly reads, and take minutes for all these registers.
template <typename Tiles, int kBytes>
[[gnu::no_sanitize("address", "undefined")]] void multiply_tiles(TileGroup& group) {
  Tiles tiles;
  tiles.start(group.start);
  const uint8_t* u = tiles.template multiply_all<0, kBytes>(group, group.u);
  tiles.rows();
  tiles.double_top();
  u = tiles.template multiply_all<1, kBytes>(group, u);
  tiles.columns();
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
  bool exact_factor;  // in the scale; else sums are shifted first
  Finish finish;
  int height, width;         // of the output image
  bool whole;                // 16 outputs
  __m512 scale[2], bias[2];  // of the halves, as their registers are

  TileFinish(const LayerOutput& output, const ConvShape& shape, int first)
      : exact_factor(factor_is_exact(output, shape, first)),
        finish(output, shape, first, exact_factor ? kF2x2Factor : 1.0f),
        height(shape.out_height()),
        width(shape.out_width()),
        whole(first + kOutputBlock <= shape.outputs),
        scale{_mm512_unpacklo_ps(finish.scale, finish.scale),
              _mm512_unpackhi_ps(finish.scale, finish.scale)},
        bias{_mm512_unpacklo_ps(finish.bias, finish.bias),
             _mm512_unpackhi_ps(finish.bias, finish.bias)} {}

  // Whether no scale becomes subnormal.
  static bool factor_is_exact(const LayerOutput& output, const ConvShape& shape, int first) {
    const int left = shape.outputs - first;
    const __mmask16 mask = left >= kOutputBlock ? 0xffff : (1 << left) - 1;
    const __m512 size = _mm512_abs_ps(_mm512_maskz_loadu_ps(mask, output.scale + first));
    const __mmask16 some = _mm512_cmp_ps_mask(size, _mm512_setzero_ps(), _CMP_GT_OQ);
    return _mm512_mask_cmp_ps_mask(some, size, _mm512_set1_ps(0x1p-120f), _CMP_LT_OQ) == 0;
  }

  // Columns of one row: half 0 has outputs 4 l, 4 l + 1 in lane l, half 1 the other two.
  static __m512i column(int x, const __m512i* halves) {
    const __m512 a = _mm512_castsi512_ps(halves[0]), b = _mm512_castsi512_ps(halves[1]);
    return _mm512_castps_si512(x == 0 ? _mm512_shuffle_ps(a, b, 0x88)
                                      : _mm512_shuffle_ps(a, b, 0xdd));
  }

  // The two pixels of a row from (y, x) on, as far as they are in the image.
  template <bool kDirect>
  void row(const __m512i* halves, int y, int x) const {
    if (y >= height) return;
    finish.operator()<kDirect>(column(0, halves), y, x);
    if (x + 1 < width) finish.operator()<kDirect>(column(1, halves), y, x + 1);
  }

  // A tile of codes: columns are separated as bytes. See codes_of for what becomes of values that
  // are not a number.
  void direct_tile(const __m512i* sums, int y, int x) const {
    __m512i values[4];
#pragma GCC unroll 4
    for (int r = 0; r < 4; ++r) {
      const __m512 value =
          _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums[r]), scale[r % 2]), bias[r % 2]);
      values[r] = _mm512_cvtps_epi32(_mm512_min_ps(finish.high[0], value));
    }
    const __m512i bytes = _mm512_packus_epi16(_mm512_packus_epi32(values[0], values[1]),
                                              _mm512_packus_epi32(values[2], values[3]));
    const __m512i columns =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    finish.store_pairs(
        finish.output->codes[0].image, y, x, 1, 0,
        pixels_of(_mm512_max_epu8(_mm512_shuffle_epi8(bytes, columns), finish.low_bytes[0])));
  }

  template <bool kDirect>
  void run(__m512i* sums, const TilePlace* place, int full, int top) const {
    if (!exact_factor) [[unlikely]] {
      for (int r = 0; r < 4 * full + 2 * top; ++r) sums[r] = _mm512_srai_epi32(sums[r], 3);
    }
    for (int k = 0; k < full; ++k, sums += 4, ++place) {
      const int y = place->y, x = place->x;
      if (!whole || y + 1 >= height || x + 1 >= width) [[unlikely]] {
        row<kDirect>(sums, y, x);
        row<kDirect>(sums + 2, y + 1, x);
      } else if (kDirect) {
        direct_tile(sums, y, x);
      } else {
        finish.square<kDirect>(column(0, sums), column(1, sums), column(0, sums + 2),
                               column(1, sums + 2), y, x);
      }
    }
    for (int k = 0; k < top; ++k, sums += 2, ++place) row<kDirect>(sums, place->y, place->x);
  }
};

}  // namespace
}  // namespace mbq
