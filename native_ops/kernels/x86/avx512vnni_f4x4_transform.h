// F(4x4, 3x3): the transforms of weights (U) and inputs (V), and where both lie. The algebra stands
// in avx512vnni_f4x4.cpp. Include after <immintrin.h>.

#include "avx512vnni_f4x4_strips.h"

namespace mbq {
namespace {

inline constexpr int kOut = 4, kIn = 6;  // sides of a tile: of outputs, of inputs and taps
inline constexpr int kChunk = 32;        // channels in one vector of int16

struct F4x4 : Cut {
  static constexpr int kFetches = kIn;
  int chunks, pairs;  // of 32 inputs; of 2

  F4x4(const ConvShape& shape, int threads, bool /*unpacking*/)
      : Cut(shape, kOut, kOut, kIn * kIn * ceil_div(shape.inputs, kChunk) * kVector,
            kIn * kIn * (ceil_div(shape.inputs, 2) + 1) * kVector, threads),
        chunks(ceil_div(shape.inputs, kChunk)),
        pairs(ceil_div(shape.inputs, 2)) {}

  void make_u(const ConvShape& shape, const uint8_t* payload, int index, uint8_t* to) const;
  void transform(const ConvCall& call, int first, int tiles, uint8_t* v) const;
  template <bool kDirect, int B, int T>
  static void group(const ConvCall& call, const F4x4& layer, const uint8_t* v, const uint8_t* u,
                    int first, const Finish* finish, Ahead& ahead);
};

// ---- weights ----

struct Words6 {
  __m512i at[kIn];
};

// 24 G.
[[gnu::always_inline]] inline Words6 transform_weights(__m512i g0, __m512i g1, __m512i g2) {
  const __m512i twice1 = _mm512_add_epi16(g1, g1), four1 = _mm512_slli_epi16(g1, 2);
  const __m512i ends = _mm512_slli_epi16(_mm512_add_epi16(g0, g2), 2);
  const __m512i far = _mm512_add_epi16(g0, _mm512_slli_epi16(g2, 2));
  const __m512i minus = _mm512_sub_epi16(_mm512_setzero_si512(), ends);
  return {{_mm512_mullo_epi16(g0, _mm512_set1_epi16(6)), _mm512_sub_epi16(minus, four1),
           _mm512_add_epi16(minus, four1), _mm512_add_epi16(far, twice1),
           _mm512_sub_epi16(far, twice1), _mm512_mullo_epi16(g2, _mm512_set1_epi16(24))}};
}

// Where tap j of a row stands: the taps 1 to 4, which the output transform joins, then 0 and 5.
inline constexpr int kPlace[kIn] = {4, 0, 1, 2, 3, 5};

// U: for each unit of one or two blocks of 16 outputs and each row of taps, in the order of use:
// steps of `step` taps each that are multiplied side by side, and for each pair of channels those
// taps of the unit's blocks, each a vector of 16 pairs of int16. Behind each step lies room for a
// pair of channels more: what is made at the same time would be a power of two apart otherwise, and
// fall into the same few sets of the cache.
struct Unit {
  int blocks, step;

  // Two blocks share what is loaded of V; alone, a block leaves registers for more taps.
  explicit Unit(int count) : blocks(count), step(count == 2 ? 2 : 4) {}
  size_t vector(int pairs, int pair, int place, int block) const {
    const int begin = place / step * step, taps = begin == 4 ? 2 : step;
    return static_cast<size_t>(begin * (pairs + 1) + pair * taps + place - begin) * blocks + block;
  }
};

void F4x4::make_u(const ConvShape& shape, const uint8_t* payload, int index, uint8_t* to) const {
  const int groups = ceil_div(shape.inputs, kCodesPerByte);
  const Unit unit(unit_blocks(index));
  const size_t row_bytes = kIn * (pairs + 1) * unit.blocks * kVector;
  for (int block = 0; block < unit.blocks; ++block) {
    const uint8_t* const codes =
        payload + static_cast<size_t>(2 * index + block) * 9 * groups * kOutputBlock;
    for (int pair = 0; pair < pairs; ++pair) {
      const __m128i shift = _mm_cvtsi32_si128(pair % 2 * 4);
      const __m512i mask = _mm512_set1_epi32(2 * pair + 1 < shape.inputs ? -1 : 0xffff);
      __m512i weight[9];
      for (int tap = 0; tap < 9; ++tap) {
        const uint8_t* const bytes = codes + (tap * groups + pair / 2) * kOutputBlock;
        const __m512i both = _mm512_srl_epi32(
            _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes))), shift);
        // Bits 2 and 3, shifted by 14, become the code of the upper half.
        const __m512i code = _mm512_and_si512(_mm512_or_si512(both, _mm512_slli_epi32(both, 14)),
                                              _mm512_set1_epi32(0x00030003));
        const __m512i value = _mm512_sub_epi16(_mm512_add_epi16(code, code), _mm512_set1_epi16(3));
        weight[tap] = _mm512_and_si512(value, mask);
      }
      Words6 down[3];
      for (int x = 0; x < 3; ++x) {
        down[x] = transform_weights(weight[x], weight[3 + x], weight[6 + x]);
      }
      for (int i = 0; i < kIn; ++i) {
        const Words6 taps = transform_weights(down[0].at[i], down[1].at[i], down[2].at[i]);
        for (int j = 0; j < kIn; ++j) {
          const size_t vector = unit.vector(pairs, pair, kPlace[j], block);
          _mm512_store_si512(to + i * row_bytes + vector * kVector, taps.at[j]);
        }
      }
    }
  }
}

// ---- inputs ----

// B^T.
[[gnu::always_inline]] inline Words6 transform_inputs(const Words6& d) {
  const __m512i a = _mm512_sub_epi16(d.at[4], _mm512_slli_epi16(d.at[2], 2));
  const __m512i b = _mm512_sub_epi16(d.at[3], _mm512_slli_epi16(d.at[1], 2));
  const __m512i c = _mm512_sub_epi16(d.at[4], d.at[2]);
  const __m512i half = _mm512_sub_epi16(d.at[3], d.at[1]);
  const __m512i e = _mm512_add_epi16(half, half);
  const __m512i first = _mm512_slli_epi16(_mm512_sub_epi16(d.at[0], d.at[2]), 2);
  const __m512i last = _mm512_sub_epi16(d.at[5], d.at[3]);
  return {{_mm512_add_epi16(first, c), _mm512_add_epi16(a, b), _mm512_sub_epi16(a, b),
           _mm512_add_epi16(c, e), _mm512_sub_epi16(c, e),
           _mm512_sub_epi16(last, _mm512_add_epi16(e, e))}};
}

// 32 channels of a tile.
struct WholeVector {
  const Window<kIn>& window;
  size_t channel;
  uint8_t* to;

  __m512i load(int i, int j) const {
    const uint8_t* const from = window.at(i, j) + channel;
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  void store(size_t offset, __m512i words) const { _mm512_store_si512(to + offset, words); }
};

// 16 channels of two tiles.
struct TwoHalves {
  const Window<kIn>&window0, &window1;
  size_t channel;
  uint8_t *to0, *to1;

  __m512i load(int i, int j) const {
    const uint8_t* const from0 = window0.at(i, j) + channel;
    const uint8_t* const from1 = window1.at(i, j) + channel;
    return _mm512_cvtepu8_epi16(
        _mm256_set_m128i(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from1)),
                         _mm_loadu_si128(reinterpret_cast<const __m128i*>(from0))));
  }
  void store(size_t offset, __m512i words) const {
    _mm256_store_si256(reinterpret_cast<__m256i*>(to0 + offset), _mm512_castsi512_si256(words));
    _mm256_store_si256(reinterpret_cast<__m256i*>(to1 + offset),
                       _mm512_extracti64x4_epi64(words, 1));
  }
};

template <typename Vector>
[[gnu::always_inline]] inline void transform_tile(const Vector& vector, size_t row_bytes,
                                                  size_t tap_bytes) {
  Words6 down[kIn];
#pragma GCC unroll 6
  for (int j = 0; j < kIn; ++j) {
    Words6 d;
    for (int i = 0; i < kIn; ++i) d.at[i] = vector.load(i, j);
    down[j] = transform_inputs(d);
  }
  for (int i = 0; i < kIn; ++i) {
    Words6 d;
    for (int j = 0; j < kIn; ++j) d.at[j] = down[j].at[i];
    const Words6 taps = transform_inputs(d);
    for (int j = 0; j < kIn; ++j) {
      vector.store(i * row_bytes + kPlace[j] * tap_bytes, taps.at[j]);
    }
  }
}

// V of a group: for each row of taps and each chunk of channels, the taps in the order of kPlace,
// of all tiles of the group: one vector of 32 channels.
void F4x4::transform(const ConvCall& call, int first, int tiles, uint8_t* v) const {
  const size_t tap_bytes = tiles * kVector;
  const size_t row_bytes = kIn * chunks * tap_bytes;
  // Chunks of more than 16 channels.
  const int whole = (call.shape.inputs + kChunk / 2 - 1) / kChunk;
  Window<kIn> windows[kGroup];
  place_windows(call, *this, kOut, kOut, first, tiles, windows);
  for (int t = 0; t < tiles; ++t) {
    for (int chunk = 0; chunk < whole; ++chunk) {
      uint8_t* const to = v + chunk * kIn * tap_bytes + t * kVector;
      const WholeVector vector{windows[t], static_cast<size_t>(chunk) * kChunk, to};
      transform_tile(vector, row_bytes, tap_bytes);
    }
  }
  if (whole == chunks) return;
  for (int t = 0; t < tiles; t += 2) {
    // The last of an odd number of tiles goes twice to the same place.
    const int other = t + 1 < tiles ? t + 1 : t;
    uint8_t* const to = v + whole * kIn * tap_bytes;
    const TwoHalves vector{windows[t], windows[other], static_cast<size_t>(whole) * kChunk,
                           to + t * kVector, to + other * kVector};
    transform_tile(vector, row_bytes, tap_bytes);
  }
}

}  // namespace
}  // namespace mbq
