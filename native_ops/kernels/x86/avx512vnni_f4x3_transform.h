// F(4x3, 3x3) of codes of 2 bits: the transforms of weights (U) and inputs (V), and where both lie.
// The algebra stands in avx512vnni_f4x3.cpp. Include after <immintrin.h>.

#include "avx512vnni_f4x4_strips.h"
#include "avx512vnni_unpack.h"

namespace mbq {
namespace {

inline constexpr int kOutRows = 3, kOutColumns = 4;  // of a tile
inline constexpr int kTapRows = 5, kTapColumns = 6;  // of its inputs and taps
inline constexpr int kChunk = 64;                    // channels in one vector
// V leaves room in L2 for prepared weights, residual and stream. A strip costs them only to be read
// once more; where weights are transformed in every run, it costs that.
inline constexpr size_t kShortStripBytes = 192 * 1024;
inline constexpr int kStarts = 4;   // of a row: the taps that do not start at 0
inline constexpr int kWideRow = 3;  // of taps, in whose columns 3 and 4 U takes two products
inline constexpr int kQuadVectors = kTapRows * kTapColumns + 1;  // vectors of U for 4 inputs

struct F4x3 : Cut {
  static constexpr int kFetches = kTapRows;
  int chunks, quads;  // of 64 inputs; of 4

  F4x3(const ConvShape& shape, int threads, bool unpacking)
      : Cut(shape, kOutRows, kOutColumns,
            kTapRows * kTapColumns * ceil_div(shape.inputs, kChunk) * kVector,
            (kTapRows * kStarts + kQuadVectors * (ceil_div(shape.inputs, kCodesPerByte) + 1)) *
                kVector,
            threads, unpacking ? kStripBytes : kShortStripBytes),
        chunks(ceil_div(shape.inputs, kChunk)),
        quads(ceil_div(shape.inputs, kCodesPerByte)) {}

  void make_u(const ConvShape& shape, const uint8_t* payload, int index, uint8_t* to) const;
  void transform(const ConvCall& call, int first, int tiles, uint8_t* v) const;
  template <bool kDirect, int B, int T>
  static void group(const ConvCall& call, const F4x3& layer, const uint8_t* v, const uint8_t* u,
                    int first, const Finish* finish, Ahead& ahead);
};

// Where tap j of a row stands: the taps 1 to 4, which the output transform joins, then 0 and 5.
inline constexpr int kPlace[kTapColumns] = {4, 0, 1, 2, 3, 5};

// ---- weights ----

using Bytes = int8_t __attribute__((vector_size(64)));
using Ints = int32_t __attribute__((vector_size(64)));

// Rows of taps from a column of weights.
template <typename V>
[[gnu::always_inline]] inline void transform_column(V g0, V g1, V g2, V (&rows)[kTapRows]) {
  const V ends = g0 + g2, twice2 = g2 + g2, four2 = twice2 + twice2;
  rows[0] = g0 + g0 + g0;
  rows[1] = ends + g1;
  rows[2] = ends - g1;
  rows[3] = g0 + g1 + g1 + four2;
  rows[4] = four2 + twice2;
}

// U of a unit of one or two blocks of 16 outputs: first what the sums start with,
// [row][tap][block], then for each row, in the order of use, pairs of taps that are multiplied side
// by side: for each 4 inputs those taps of the unit's blocks, a vector of 16 x 4 weights each. In
// the wide row the second product of the taps 3 and 4 comes after the first; it is the same for
// both. Behind each pair lies room for 4 inputs more: what is made at the same time would be a
// power of two apart otherwise, and fall into the same few sets of the cache.
void F4x3::make_u(const ConvShape& shape, const uint8_t* payload, int index, uint8_t* to) const {
  const int together = unit_blocks(index);
  const size_t tap_bytes = together * kVector, pair_bytes = (quads + 1) * 2 * tap_bytes;
  const size_t payload_bytes = static_cast<size_t>(9) * quads * kOutputBlock;
  const int last = shape.inputs % kCodesPerByte;  // inputs of the last 4, or 0 for all
  Ints sum[2][9] = {};
  for (int quad = 0; quad < quads; ++quad) {
    const bool partial = last != 0 && quad + 1 == quads;
    const __mmask64 present = 0x1111111111111111u * ((1u << last) - 1);
    for (int block = 0; block < together; ++block) {
      const uint8_t* const codes =
          payload + (2 * index + block) * payload_bytes + quad * kOutputBlock;
      Bytes rows[3][kTapRows];
#pragma GCC unroll 3
      for (int x = 0; x < 3; ++x) {
        Bytes weight[3];
#pragma GCC unroll 3
        for (int y = 0; y < 3; ++y) {
          const int tap = 3 * y + x;
          __m512i w = unpack_weights(codes + static_cast<size_t>(tap) * quads * kOutputBlock);
          if (partial) [[unlikely]]
            w = _mm512_maskz_mov_epi8(present, w);
          weight[y] = reinterpret_cast<Bytes>(w);
          // What the sums start with takes no weight of the first column.
          if (x > 0) {
            sum[block][tap] = reinterpret_cast<Ints>(_mm512_dpbusd_epi32(
                reinterpret_cast<__m512i>(sum[block][tap]), _mm512_set1_epi8(1), w));
          }
        }
        transform_column(weight[0], weight[1], weight[2], rows[x]);
      }
      uint8_t* pair = to + kTapRows * kStarts * tap_bytes + quad * 2 * tap_bytes + block * kVector;
      const auto store = [&](Bytes tap0, Bytes tap1) {
        _mm512_store_si512(pair, reinterpret_cast<__m512i>(tap0));
        _mm512_store_si512(pair + tap_bytes, reinterpret_cast<__m512i>(tap1));
        pair += pair_bytes;
      };
#pragma GCC unroll 5
      for (int i = 0; i < kTapRows; ++i) {
        const Bytes a = rows[0][i], b = rows[1][i], c = rows[2][i];
        const Bytes ends = a + c, twice_b = b + b, twice_c = c + c, thrice_a = a + a + a;
        store(ends + b, ends - b);
        const Bytes far = i == kWideRow ? a + twice_c : a + twice_c + twice_c;
        store(far + twice_b, far - twice_b);
        if (i == kWideRow) {
          _mm512_store_si512(pair - quad * tap_bytes, reinterpret_cast<__m512i>(twice_c));
          pair += pair_bytes / 2;
        }
        store(thrice_a + thrice_a, twice_c + twice_c + twice_c);
      }
    }
  }
  // The offset of V adds 128 times the sums of U; these take it away.
  for (int block = 0; block < together; ++block) {
    Ints rows[3][kTapRows];
    for (int x = 1; x < 3; ++x) {
      transform_column(sum[block][x], sum[block][3 + x], sum[block][6 + x], rows[x]);
    }
    for (int i = 0; i < kTapRows; ++i) {
      const Ints b = rows[1][i], c = rows[2][i];
      const Ints starts[kStarts] = {b + 2 * c, -b, 2 * b + 6 * c, 2 * c - 2 * b};
      for (int s = 0; s < kStarts; ++s) {
        _mm512_store_si512(to + ((i * kStarts + s) * together + block) * kVector,
                           reinterpret_cast<__m512i>(-128 * starts[s]));
      }
    }
  }
}

// ---- inputs ----

[[gnu::always_inline]] inline __m512i twice(__m512i a) { return _mm512_add_epi8(a, a); }

// B^T down a column.
[[gnu::always_inline]] inline void transform_down(const __m512i (&d)[kTapRows],
                                                  __m512i (&to)[kTapRows]) {
  const __m512i step = _mm512_sub_epi8(d[3], d[1]), drop = _mm512_sub_epi8(d[1], d[2]);
  to[0] = _mm512_add_epi8(twice(_mm512_sub_epi8(d[0], d[2])), step);
  to[1] = _mm512_sub_epi8(step, _mm512_add_epi8(d[1], d[2]));
  to[2] = _mm512_add_epi8(_mm512_add_epi8(step, drop), twice(drop));
  to[3] = step;
  to[4] = _mm512_sub_epi8(_mm512_sub_epi8(d[4], d[2]), twice(step));
}

// B^T along a row, to the places of its taps.
[[gnu::always_inline]] inline void transform_along(const __m512i (&d)[kTapColumns], uint8_t* to,
                                                   size_t tap_bytes) {
  const __m512i a = _mm512_sub_epi8(d[4], twice(twice(d[2])));
  const __m512i b = _mm512_sub_epi8(d[3], twice(twice(d[1])));
  const __m512i c = _mm512_sub_epi8(d[4], d[2]);
  const __m512i e = twice(_mm512_sub_epi8(d[3], d[1]));
  const __m512i first = twice(twice(_mm512_sub_epi8(d[0], d[2])));
  const __m512i last = _mm512_sub_epi8(d[5], d[3]);
  _mm512_store_si512(to, _mm512_add_epi8(a, b));
  _mm512_store_si512(to + tap_bytes, _mm512_sub_epi8(a, b));
  _mm512_store_si512(to + 2 * tap_bytes, _mm512_add_epi8(c, e));
  _mm512_store_si512(to + 3 * tap_bytes, _mm512_sub_epi8(c, e));
  _mm512_store_si512(to + 4 * tap_bytes, _mm512_add_epi8(first, c));
  _mm512_store_si512(to + 5 * tap_bytes, _mm512_sub_epi8(last, twice(e)));
}

// V of a group: for each row of taps and each chunk of channels, the taps in the order of kPlace,
// of all tiles of the group: one vector of 64 channels.
void F4x3::transform(const ConvCall& call, int first, int tiles, uint8_t* v) const {
  const size_t tap_bytes = tiles * kVector;
  const size_t row_bytes = kTapColumns * chunks * tap_bytes;
  Window<kTapRows, kTapColumns> windows[kGroup];
  place_windows(call, *this, kOutRows, kOutColumns, first, tiles, windows);
  const __m512i offset = _mm512_set1_epi8(-128);
  for (int t = 0; t < tiles; ++t) {
    for (int chunk = 0; chunk < chunks; ++chunk) {
      __m512i taps[kTapRows][kTapColumns];
#pragma GCC unroll 6
      for (int j = 0; j < kTapColumns; ++j) {
        __m512i d[kTapRows], down[kTapRows];
#pragma GCC unroll 5
        for (int i = 0; i < kTapRows; ++i) {
          d[i] = _mm512_loadu_si512(windows[t].at(i, j) + chunk * kChunk);
          // Every tap has exactly one of these rows and one of these columns an odd number of
          // times: bytes wrap, so that this adds 128 to all of V.
          if (i >= 3 && j >= 4) d[i] = _mm512_xor_si512(d[i], offset);
        }
        transform_down(d, down);
#pragma GCC unroll 5
        for (int i = 0; i < kTapRows; ++i) taps[i][j] = down[i];
      }
      uint8_t* to = v + (chunk * kTapColumns * tiles + t) * kVector;
#pragma GCC unroll 5
      for (int i = 0; i < kTapRows; ++i, to += row_bytes) transform_along(taps[i], to, tap_bytes);
    }
  }
}

}  // namespace
}  // namespace mbq
