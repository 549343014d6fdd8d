// 3x3 at stride 2 with 25 products for 4 outputs where the direct sum has 36, for codes of up to 6
// bits.
//
// Along one axis the even and the odd inputs of a window go separate ways: with a0, a1, a2 the
// inputs 2o - 1, 2o + 1, 2o + 3 and e0, e1 those between them, two outputs are
//   y0 = w0 a0 + w1 e0 + w2 a1
//   y1 = w0 a1 + w1 e1 + w2 a2.
// The odd ones are a filter of two taps at stride 1, for which Winograd's F(2,2) needs three
// products instead of four, here in the form that only adds inputs:
//   p = w0 (a0 + a1), q = (w2 - w0) a1, r = w2 (a1 + a2);  y0 = p + q + w1 e0, y1 = r - q + w1 e1.
// Both axes together have 5 x 5 taps, sums of at most four codes: they fit uint8 if codes are at
// most 63. Weights are within +-12 and those of e0 and e1 the same, so U has 4 x 4 taps.
//
// The products p and w1 e0 only ever occur together, as do r and w1 e1: each pair shares a sum, and
// what is still to be added or subtracted is where the next sum starts.

#include "avx512vnni_layers.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#include "avx512vnni_f4x4_strips.h"
#include "avx512vnni_unpack.h"

namespace mbq {
namespace {

constexpr int kOut = 2;      // side of a tile of outputs
constexpr int kIn = 5;       // and of its taps: a0 + a1, a1, a1 + a2, e0, e1
constexpr int kWeights = 4;  // U: w0, w2 - w0, w2, w1
constexpr int kMaxCode = 63;
constexpr int kChunk = 64;  // channels in one vector of codes

constexpr int weights_of(int tap) { return tap < 3 ? tap : 3; }

struct Stride2 : Cut {
  static constexpr int kFetches = 3;
  int chunks, quads;  // of 64 inputs; of 4

  Stride2(const ConvShape& shape, int threads, bool /*unpacking*/)
      : Cut(shape, kOut, kOut, kIn * kIn * ceil_div(shape.inputs, kChunk) * kVector,
            kWeights * kWeights * (ceil_div(shape.inputs, kCodesPerByte) + 1) * kVector, threads),
        chunks(ceil_div(shape.inputs, kChunk)),
        quads(ceil_div(shape.inputs, kCodesPerByte)) {}

  void make_u(const ConvShape& shape, const uint8_t* payload, int unit, uint8_t* to) const;
  void transform(const ConvCall& call, int first, int tiles, uint8_t* v) const;
  template <bool kDirect, int B, int T>
  static void group(const ConvCall& call, const Stride2& layer, const uint8_t* v, const uint8_t* u,
                    int first, const Finish* finish, Ahead& ahead);
};

// U: for each unit and each of its 4 x 4 taps, for each 4 inputs, a vector of the weights of 16
// outputs for each block. Behind each tap lies room for 4 inputs more: what is made at the same
// time would be a power of two apart otherwise, and fall into the same few sets of the cache.
void Stride2::make_u(const ConvShape& shape, const uint8_t* payload, int unit, uint8_t* to) const {
  const int together = unit_blocks(unit);
  for (int block = 0; block < together; ++block) {
    const uint8_t* const codes =
        payload + static_cast<size_t>(2 * unit + block) * 9 * quads * kOutputBlock;
    for (int quad = 0; quad < quads; ++quad) {
      const int left = shape.inputs - quad * kCodesPerByte;
      const __m512i mask = _mm512_set1_epi32(
          static_cast<int32_t>(left >= kCodesPerByte ? 0xffffffffu : (1u << 8 * left) - 1));
      __m512i weight[3][3];
      for (int tap = 0; tap < 9; ++tap) {
        const uint8_t* const bytes = codes + (tap * quads + quad) * kOutputBlock;
        weight[tap / 3][tap % 3] = _mm512_and_si512(unpack_weights(bytes), mask);
      }
      const auto expand = [](__m512i w0, __m512i w1, __m512i w2, __m512i(&out)[kWeights]) {
        out[0] = w0;
        out[1] = _mm512_sub_epi8(w2, w0);
        out[2] = w2;
        out[3] = w1;
      };
      __m512i down[3][kWeights];
      for (int x = 0; x < 3; ++x) expand(weight[0][x], weight[1][x], weight[2][x], down[x]);
      for (int i = 0; i < kWeights; ++i) {
        __m512i taps[kWeights];
        expand(down[0][i], down[1][i], down[2][i], taps);
        for (int j = 0; j < kWeights; ++j) {
          const size_t vector =
              (static_cast<size_t>(i * kWeights + j) * (quads + 1) + quad) * together + block;
          _mm512_store_si512(to + vector * kVector, taps[j]);
        }
      }
    }
  }
}

struct Bytes5 {
  __m512i at[kIn];
};

[[gnu::always_inline]] inline Bytes5 transform_inputs(const Bytes5& d) {
  return {{_mm512_add_epi8(d.at[0], d.at[2]), d.at[2], _mm512_add_epi8(d.at[2], d.at[4]), d.at[1],
           d.at[3]}};
}

// V of a group: for each tap and each chunk of channels, one vector of 64 channels for each tile.
void Stride2::transform(const ConvCall& call, int first, int tiles, uint8_t* v) const {
  Window<kIn> windows[kGroup];
  place_windows(call, *this, 2 * kOut, 2 * kOut, first, tiles, windows);
  const size_t tap_bytes = chunks * tiles * kVector;
  for (int t = 0; t < tiles; ++t) {
    for (int chunk = 0; chunk < chunks; ++chunk) {
      Bytes5 down[kIn];
      for (int j = 0; j < kIn; ++j) {
        Bytes5 d;
        for (int i = 0; i < kIn; ++i) {
          d.at[i] = _mm512_loadu_si512(windows[t].at(i, j) + chunk * kChunk);
        }
        down[j] = transform_inputs(d);
      }
      uint8_t* to = v + (chunk * tiles + t) * kVector;
      for (int i = 0; i < kIn; ++i) {
        const Bytes5 taps = transform_inputs(
            {{down[0].at[i], down[1].at[i], down[2].at[i], down[3].at[i], down[4].at[i]}});
        for (int j = 0; j < kIn; ++j, to += tap_bytes) _mm512_store_si512(to, taps.at[j]);
      }
    }
  }
}

// In assembly because the compiler may move sums to memory in loops of this size.
[[gnu::always_inline]] inline void dot(__m512i& sum, __m512i codes, __m512i weights) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(weights));
}

// sum[b][t] += sum over channels of U[b] * V[t] of one tap. All loops over sums are unrolled early
// on: the compiler makes calls of memcpy and memset of them otherwise, and the sums stay in memory.
template <int B, int T>
[[gnu::always_inline]] inline void multiply_tap(__m512i (&sum)[B][T], const uint8_t* v,
                                                const uint8_t* u, int quads) {
  for (int left = quads; left > 0; left -= kChunk / 4, v += T * kVector) {
    const uint8_t* const end = v + (left < kChunk / 4 ? left : kChunk / 4) * 4;
    for (const uint8_t* from = v; from != end; from += 4, u += B * kVector) {
      __m512i weights[B];
#pragma GCC unroll 8
      for (int b = 0; b < B; ++b) weights[b] = _mm512_load_si512(u + b * kVector);
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        using Quad = const int32_t __attribute__((may_alias));
        const __m512i codes = _mm512_set1_epi32(*reinterpret_cast<Quad*>(from + t * kVector));
#pragma GCC unroll 8
        for (int b = 0; b < B; ++b) dot(sum[b][t], codes, weights[b]);
      }
    }
  }
}

// One or two rows of taps: y0 and y1 on top of what they hold.
template <int B, int T>
[[gnu::noinline]] void multiply_rows(const Stride2& layer, const uint8_t* v, const uint8_t* u,
                                     const int (&row)[2], int rows, __m512i (&y0)[B][T],
                                     __m512i (&y1)[B][T]) {
  const size_t v_bytes = layer.chunks * T * kVector, u_bytes = (layer.quads + 1) * B * kVector;
  const int quads = layer.quads;
  const uint8_t *row_v[2], *row_u[2];
  for (int i = 0; i < 2; ++i) {
    row_v[i] = v + row[i] * kIn * v_bytes;
    row_u[i] = u + weights_of(row[i]) * kWeights * u_bytes;
  }
  __m512i sum[B][T], other[B][T];
#pragma GCC unroll 8
  for (int b = 0; b < B; ++b) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) sum[b][t] = _mm512_setzero_si512();
  }
  for (int i = 0; i < rows; ++i) multiply_tap(sum, row_v[i] + v_bytes, row_u[i] + u_bytes, quads);
#pragma GCC unroll 8
  for (int b = 0; b < B; ++b) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      other[b][t] = _mm512_sub_epi32(y1[b][t], sum[b][t]);
      sum[b][t] = _mm512_add_epi32(y0[b][t], sum[b][t]);
    }
  }
  for (int i = 0; i < 2 * rows; ++i) {
    const int j = i % 2 * 3;
    multiply_tap(sum, row_v[i / 2] + j * v_bytes, row_u[i / 2] + j * u_bytes, quads);
  }
#pragma GCC unroll 8
  for (int b = 0; b < B; ++b) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) y0[b][t] = sum[b][t];
  }
  for (int i = 0; i < 2 * rows; ++i) {
    const int j = 2 + i % 2 * 2;
    multiply_tap(other, row_v[i / 2] + j * v_bytes, row_u[i / 2] + weights_of(j) * u_bytes, quads);
  }
#pragma GCC unroll 8
  for (int b = 0; b < B; ++b) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) y1[b][t] = other[b][t];
  }
}

// B blocks of 16 outputs of T tiles.
template <bool kDirect, int B, int T>
void Stride2::group(const ConvCall& call, const Stride2& layer, const uint8_t* v, const uint8_t* u,
                    int first, const Finish* finish, Ahead& ahead) {
  // As along a row: the row of a1 goes into both rows of outputs, with opposite signs.
  __m512i upper[2][B][T], lower[2][B][T];
  for (int x = 0; x < 2; ++x) {
    for (int b = 0; b < B; ++b) {
      for (int t = 0; t < T; ++t) upper[x][b][t] = _mm512_setzero_si512();
    }
  }
  ahead.fetch();
  multiply_rows<B, T>(layer, v, u, {1, 1}, 1, upper[0], upper[1]);
  for (int x = 0; x < 2; ++x) {
    for (int b = 0; b < B; ++b) {
      for (int t = 0; t < T; ++t) {
        lower[x][b][t] = _mm512_sub_epi32(_mm512_setzero_si512(), upper[x][b][t]);
      }
    }
  }
  ahead.fetch();
  multiply_rows<B, T>(layer, v, u, {0, 3}, 2, upper[0], upper[1]);
  ahead.fetch();
  multiply_rows<B, T>(layer, v, u, {2, 4}, 2, lower[0], lower[1]);
  for (int t = 0; t < T; ++t) {
    const int y = (first + t) / layer.columns * kOut, x = (first + t) % layer.columns * kOut;
    for (int b = 0; b < B; ++b) {
      finish_square<kDirect>(finish[b], call.shape, upper[0][b][t], upper[1][b][t], lower[0][b][t],
                             lower[1][b][t], y, x);
    }
  }
}

bool supports(const ConvShape& shape, int highest) {
  return shape.kernel_height == 3 && shape.kernel_width == 3 && shape.stride == 2 &&
         highest <= kMaxCode;
}

}  // namespace

constexpr ConvKernel avx512vnni::kStride2 =
    StripKernel<Stride2>::prepared("u8s2_conv3x3s2_phases_7x32__avx512vnni", supports);
constexpr ConvKernel avx512vnni::kStride2Unpacking =
    StripKernel<Stride2>::unpacking("u8s2_conv3x3s2_phases_unpacking_7x32__avx512vnni", supports);

}  // namespace mbq

#endif
