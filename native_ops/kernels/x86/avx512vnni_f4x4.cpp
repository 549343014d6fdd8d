// Winograd F(4x4, 3x3) (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2016) in
// exact integers: 36 products for 16 outputs where the direct sum has 144. It serves the codes that
// are too wide for F(2x2) in int8: vpdpwssd multiplies pairs of int16, at half of vpdpbusd's rate.
//
// With the points 0, 1, -1, 2, -2 and infinity, the input transform B has integer coefficients, the
// weight transform G only after multiplication by 24, and the output transform A has 1, 2, 4, 8:
//   24 G: (6,0,0) (-4,-4,-4) (-4,4,-4) (1,2,4) (1,-2,4) (0,0,24)
//   B^T:  (4,0,-5,0,1,0) (0,-4,-4,1,1,0) (0,4,-4,-1,1,0) (0,-2,-1,2,1,0) (0,2,-1,-2,1,0)
//         (0,4,0,-5,0,1)
//   A^T:  (1,1,1,1,1,0) (0,1,-1,2,-2,0) (0,1,1,4,4,0) (0,1,-1,8,-8,1)
// Applied along both axes, V = B^T d B is within [-32, 68] * 255 and U = 24 G w 24 G^T within
// 24 * 24 * 3, so both fit int16. A^T (U V) A is 576 times the accumulator. It need not fit int32:
// everything up to there is exact modulo 2^32, and multiplied by the inverse of 9 modulo 2^32 it
// becomes 64 times the accumulator, which does fit.

#include "avx512vnni_layers.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#include "avx512vnni_f4x4_transform.h"

namespace mbq {
namespace {

constexpr int kInverse9 = 954437177;  // 9 * kInverse9 = 1 modulo 2^32

// In assembly because the compiler, left to itself, does not keep 28 sums in registers.
[[gnu::always_inline]] inline void dot(__m512i& sum, __m512i weights, __m512i inputs) {
  asm("vpdpwssd %2, %1, %0" : "+v"(sum) : "v"(weights), "v"(inputs));
}
using Pair = const int32_t __attribute__((may_alias));
[[gnu::always_inline]] inline void dot(__m512i& sum, __m512i weights, Pair& inputs) {
  asm("vpdpwssd %2%{1to16%}, %1, %0" : "+v"(sum) : "v"(weights), "m"(inputs));
}

// sum[j][b][t] += sum over channels of U[j][b] * V[j][t], for J taps that lie side by side.
template <int J, int B, int T>
[[gnu::always_inline]] inline void multiply(__m512i (&sum)[J][B][T], const uint8_t* v,
                                            const uint8_t* u, int pairs) {
  for (int left = pairs; left > 0; left -= kChunk / 2, v += kIn * T * kVector) {
    const uint8_t* const end = v + (left < kChunk / 2 ? left : kChunk / 2) * 4;
    for (const uint8_t* from = v; from != end; from += 4, u += J * B * kVector) {
#pragma GCC unroll 8
      for (int j = 0; j < J; ++j) {
        __m512i weights[B];
#pragma GCC unroll 8
        for (int b = 0; b < B; ++b) weights[b] = _mm512_load_si512(u + (j * B + b) * kVector);
#pragma GCC unroll 8
        for (int t = 0; t < T; ++t) {
          Pair& inputs = *reinterpret_cast<Pair*>(from + (j * T + t) * kVector);
          if constexpr (B == 1) {
            dot(sum[j][0][t], weights[0], inputs);
          } else {
            const __m512i both = _mm512_set1_epi32(inputs);
#pragma GCC unroll 8
            for (int b = 0; b < B; ++b) dot(sum[j][b][t], weights[b], both);
          }
        }
      }
    }
  }
}

struct Sums4 {
  __m512i at[kOut];
};

// A^T without the taps 0 and 5, which only enter the first and the last output.
[[gnu::always_inline]] inline Sums4 transform_outputs(__m512i sum12, __m512i difference12,
                                                      __m512i m3, __m512i m4) {
  const __m512i sum34 = _mm512_add_epi32(m3, m4), difference34 = _mm512_sub_epi32(m3, m4);
  return {{_mm512_add_epi32(sum12, sum34),
           _mm512_add_epi32(difference12, _mm512_slli_epi32(difference34, 1)),
           _mm512_add_epi32(sum12, _mm512_slli_epi32(sum34, 2)),
           _mm512_add_epi32(difference12, _mm512_slli_epi32(difference34, 3))}};
}

template <int J, int B, int T>
[[gnu::always_inline]] inline void clear(__m512i (&sum)[J][B][T]) {
#pragma GCC unroll 8
  for (int j = 0; j < J; ++j) {
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) {
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) sum[j][b][t] = _mm512_setzero_si512();
    }
  }
}

// One row of taps of T tiles and B blocks of outputs: multiplied, and transformed along the row.
template <int B, int T>
[[gnu::always_inline]] inline void multiply_row(const uint8_t* v, const uint8_t* u, int pairs,
                                                __m512i (&out)[kOut][B][T]) {
  constexpr size_t kTap = T * kVector;
  const size_t step = static_cast<size_t>(pairs + 1) * 2 * B * kVector;
  // The outer taps are summed on top of what the others give to their outputs.
  __m512i outer[2][B][T];
  if constexpr (B == 1) {
    __m512i taps[4][B][T];
    clear(taps);
    multiply(taps, v, u, pairs);
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      const __m512i m1 = taps[0][0][t], m2 = taps[1][0][t];
      const Sums4 sums = transform_outputs(_mm512_add_epi32(m1, m2), _mm512_sub_epi32(m1, m2),
                                           taps[2][0][t], taps[3][0][t]);
      outer[0][0][t] = sums.at[0];
      out[1][0][t] = sums.at[1];
      out[2][0][t] = sums.at[2];
      outer[1][0][t] = sums.at[3];
    }
  } else {
    __m512i taps[2][B][T];
    clear(taps);
    multiply(taps, v, u, pairs);
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) {
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        out[2][b][t] = _mm512_add_epi32(taps[0][b][t], taps[1][b][t]);
        out[1][b][t] = _mm512_sub_epi32(taps[0][b][t], taps[1][b][t]);
      }
    }
    clear(taps);
    multiply(taps, v + 2 * kTap, u + step, pairs);
#pragma GCC unroll 8
    for (int b = 0; b < B; ++b) {
#pragma GCC unroll 8
      for (int t = 0; t < T; ++t) {
        const Sums4 sums =
            transform_outputs(out[2][b][t], out[1][b][t], taps[0][b][t], taps[1][b][t]);
        outer[0][b][t] = sums.at[0];
        out[1][b][t] = sums.at[1];
        out[2][b][t] = sums.at[2];
        outer[1][b][t] = sums.at[3];
      }
    }
  }
  multiply(outer, v + 4 * kTap, u + 2 * step, pairs);
#pragma GCC unroll 8
  for (int b = 0; b < B; ++b) {
#pragma GCC unroll 8
    for (int t = 0; t < T; ++t) {
      out[0][b][t] = outer[0][b][t];
      out[3][b][t] = outer[1][b][t];
    }
  }
}

// The accumulators of column `c` of a tile.
template <int B, int T>
[[gnu::always_inline]] inline Sums4 column_of(const __m512i (&rows)[kIn][kOut][B][T], int c, int b,
                                              int t) {
  const __m512i m1 = rows[1][c][b][t], m2 = rows[2][c][b][t];
  Sums4 out = transform_outputs(_mm512_add_epi32(m1, m2), _mm512_sub_epi32(m1, m2),
                                rows[3][c][b][t], rows[4][c][b][t]);
  out.at[0] = _mm512_add_epi32(out.at[0], rows[0][c][b][t]);
  out.at[3] = _mm512_add_epi32(out.at[3], rows[5][c][b][t]);
  const __m512i inverse = _mm512_set1_epi32(kInverse9);
  for (int r = 0; r < kOut; ++r) {
    out.at[r] = _mm512_srai_epi32(_mm512_mullo_epi32(out.at[r], inverse), 6);
  }
  return out;
}

// B blocks of 16 outputs of T tiles.
template <bool kDirect, int B, int T>
void F4x4::group(const ConvCall& call, const F4x4& layer, const uint8_t* v, const uint8_t* u,
                 int first, const Finish* finish, Ahead& ahead) {
  __m512i rows[kIn][kOut][B][T];
  for (int i = 0; i < kIn; ++i) {
    ahead.fetch();
    if (!kDirect && layer.prefetch && i < kOut) {
      for (int t = first; t < first + T; ++t) {
        prefetch_row<kOut, B>(call.output, call.shape, t / layer.columns * kOut + i,
                              t % layer.columns * kOut, finish->first);
      }
    }
    multiply_row<B, T>(v + i * kIn * layer.chunks * T * kVector,
                       u + i * kIn * (layer.pairs + 1) * B * kVector, layer.pairs, rows[i]);
  }
  const int out_height = call.shape.out_height(), out_width = call.shape.out_width();
  for (int t = 0; t < T; ++t) {
    const int y = (first + t) / layer.columns * kOut, x = (first + t) % layer.columns * kOut;
    for (int b = 0; b < B; ++b) {
      for (int c = 0; c < kOut && x + c < out_width; c += 2) {
        const Sums4 left = column_of(rows, c, b, t), right = column_of(rows, c + 1, b, t);
        for (int r = 0; r < kOut && y + r < out_height; r += 2) {
          finish_square<kDirect>(finish[b], call.shape, left.at[r], right.at[r], left.at[r + 1],
                                 right.at[r + 1], y + r, x + c);
        }
      }
    }
  }
}

// 64 times the accumulator has to fit int32, and V int16.
bool supports(const ConvShape& shape, int highest) {
  return shape.kernel_height == 3 && shape.kernel_width == 3 && shape.stride == 1 &&
         highest <= 255 && int64_t{64} * 27 * shape.inputs * highest <= INT32_MAX;
}

}  // namespace

constexpr ConvKernel avx512vnni::kF4x4 =
    StripKernel<F4x4>::prepared("u8s2_conv3x3s1_f4x4_7x32__avx512vnni", supports);
constexpr ConvKernel avx512vnni::kF4x4Unpacking =
    StripKernel<F4x4>::unpacking("u8s2_conv3x3s1_f4x4_unpacking_7x32__avx512vnni", supports);

}  // namespace mbq

#endif
