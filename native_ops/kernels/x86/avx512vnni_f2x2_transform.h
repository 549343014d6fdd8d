// Input transform of F(2x2,3x3): codes -> V, one byte for each of the 16 taps of a tile.
//
// With d the 4x4 codes below a tile, V = B^T d B where B^T has the rows (1,0,-1,0), (0,1,1,0),
// (0,-1,1,0), (0,1,0,-1) (Lavin & Gray 2016). Codes are at most 63, so tap (1,1), the only one that
// just adds, is in 0..252 and the others are in -126..126. V is kept as u8: tap (1,1) as it is, the
// others plus 128. Byte arithmetic wraps, and of the two columns that make a tap exactly one is of
// each other pair; so 128 is added to one pair of columns in two, and there to two of the four
// codes of a column, which puts it into all four row combinations once.
//
// Layout: [chunk of channels][stream][tile][kBytes], kBytes = 64, 32 or 16 channels of one tile.
// Multiplication takes two taps of a tile and 4 channels at a time, 8 bytes: interleaving them
// within 128-bit lanes makes two streams of two taps. Include after <immintrin.h>.

#include "../layers.h"

namespace mbq {
namespace {

// Taps (i, j) as 4 i + j in the order in which they are multiplied: in each of four steps two pairs
// of the same i.
inline constexpr int kTapOrder[4][2][2] = {
    {{1, 2}, {13, 14}}, {{5, 6}, {9, 10}}, {{4, 7}, {8, 11}}, {{0, 3}, {12, 15}}};

// Streams of a pair: channels 0..3 and 4..7, then 8..11 and 12..15 of every 16.
constexpr int stream_of(int step, int pair, int half) { return 4 * step + 2 * half + pair; }

// The four row combinations of one or more columns of codes.
struct Columns {
  __m512i of[4];
};

[[gnu::always_inline]] inline Columns columns_at(const uint8_t* codes, size_t row, __m512i offset) {
  const __m512i d0 = _mm512_xor_si512(_mm512_loadu_si512(codes), offset);
  const __m512i d1 = _mm512_xor_si512(_mm512_loadu_si512(codes + row), offset);
  const __m512i d2 = _mm512_loadu_si512(codes + 2 * row);
  const __m512i d3 = _mm512_loadu_si512(codes + 3 * row);
  return {{_mm512_sub_epi8(d0, d2), _mm512_add_epi8(d1, d2), _mm512_sub_epi8(d2, d1),
           _mm512_sub_epi8(d1, d3)}};
}

// Taps (i, 0..3) of columns that all hold row combination i.
[[gnu::always_inline]] inline void store_taps(int i, __m512i c0, __m512i c1, __m512i c2, __m512i c3,
                                              uint8_t* v, size_t stride) {
  const int inner = i == 1 || i == 2 ? 1 : 0, outer = 3 - inner, pair = i >= 2 ? 1 : 0;
  __m512i sum = _mm512_add_epi8(c1, c2);
  if (i == 1) sum = _mm512_xor_si512(sum, _mm512_set1_epi8(-128));
  const __m512i v0 = _mm512_sub_epi8(c0, c2), v2 = _mm512_sub_epi8(c2, c1);
  const __m512i v3 = _mm512_sub_epi8(c1, c3);
  _mm512_storeu_si512(v + stream_of(inner, pair, 0) * stride, _mm512_unpacklo_epi32(sum, v2));
  _mm512_storeu_si512(v + stream_of(inner, pair, 1) * stride, _mm512_unpackhi_epi32(sum, v2));
  _mm512_storeu_si512(v + stream_of(outer, pair, 0) * stride, _mm512_unpacklo_epi32(v0, v3));
  _mm512_storeu_si512(v + stream_of(outer, pair, 1) * stride, _mm512_unpackhi_epi32(v0, v3));
}

// One row of tiles. `codes` is the first tile's top left code, `row` and `pixel` as in CodeImage.
// May write up to a vector behind the last tile of each stream.
template <int kBytes>
struct RowTransform;

// 64 channels of one tile in a vector, for any pixel size.
template <>
struct RowTransform<64> {
  [[gnu::always_inline]] static void store(const Columns& c0, const Columns& c1, const Columns& c2,
                                           const Columns& c3, uint8_t* v, size_t stride) {
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) store_taps(i, c0.of[i], c1.of[i], c2.of[i], c3.of[i], v, stride);
  }

  // slots: where the tiles of this row are kept.
  static void run(const uint8_t* codes, size_t row, size_t pixel, int tiles, const uint16_t* slots,
                  uint8_t* v, size_t stride) {
    const __m512i plain = _mm512_setzero_si512(), moved = _mm512_set1_epi8(-128);
    Columns c0 = columns_at(codes, row, plain), c1 = columns_at(codes + pixel, row, plain);
    codes += 2 * pixel;
    for (int tile = 0; tile < tiles; tile += 2) {
      const Columns c2 = columns_at(codes, row, moved), c3 = columns_at(codes + pixel, row, moved);
      store(c0, c1, c2, c3, v + slots[tile] * 64, stride);
      if (tile + 1 == tiles) return;
      codes += 2 * pixel;
      c0 = columns_at(codes, row, plain);
      c1 = columns_at(codes + pixel, row, plain);
      store(c2, c3, c0, c1, v + slots[tile + 1] * 64, stride);
      codes += 2 * pixel;
    }
  }
};

// 32 channels: two neighbouring pixels, then two neighbouring tiles, in a vector. pixel is 32.
template <>
struct RowTransform<32> {
  static void run(const uint8_t* codes, size_t row, size_t, int tiles, const uint16_t* slots,
                  uint8_t* v, size_t stride) {
    const __m512i plain = _mm512_setzero_si512(), moved = _mm512_set1_epi8(-128);
    v += slots[0] * 32;
    Columns p0 = columns_at(codes, row, plain);
    for (int tile = 0; tile < tiles; tile += 2, codes += 128, v += 64) {
      const Columns p1 = columns_at(codes + 64, row, moved);
      const Columns p2 = columns_at(codes + 128, row, plain);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        store_taps(i, _mm512_shuffle_i64x2(p0.of[i], p1.of[i], 0x44),
                   _mm512_shuffle_i64x2(p0.of[i], p1.of[i], 0xee),
                   _mm512_shuffle_i64x2(p1.of[i], p2.of[i], 0x44),
                   _mm512_shuffle_i64x2(p1.of[i], p2.of[i], 0xee), v, stride);
      }
      p0 = p2;
    }
  }
};

// 16 channels: four neighbouring pixels, then four neighbouring tiles, in a vector. pixel is 16.
template <>
struct RowTransform<16> {
  // Even and odd columns of eight neighbouring pixels.
  struct Split {
    __m512i even[4], odd[4];
  };

  [[gnu::always_inline]] static Split split_at(const uint8_t* codes, size_t row) {
    const __m512i moved = _mm512_inserti64x4(_mm512_setzero_si512(), _mm256_set1_epi8(-128), 1);
    const Columns left = columns_at(codes, row, moved), right = columns_at(codes + 64, row, moved);
    Split split;
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      split.even[i] = _mm512_shuffle_i64x2(left.of[i], right.of[i], 0x88);
      split.odd[i] = _mm512_shuffle_i64x2(left.of[i], right.of[i], 0xdd);
    }
    return split;
  }

  static void run(const uint8_t* codes, size_t row, size_t, int tiles, const uint16_t* slots,
                  uint8_t* v, size_t stride) {
    v += slots[0] * 16;
    Split here = split_at(codes, row);
    for (int tile = 0; tile < tiles; tile += 4, v += 64) {
      codes += 128;
      const Split next = split_at(codes, row);
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) {
        store_taps(i, here.even[i], here.odd[i], _mm512_alignr_epi64(next.even[i], here.even[i], 2),
                   _mm512_alignr_epi64(next.odd[i], here.odd[i], 2), v, stride);
      }
      here = next;
    }
  }
};

}  // namespace
}  // namespace mbq
