// Winograd F(4x3, 3x3) (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks", 2016) in
// exact integers for codes of 2 bits: 32 products of bytes for tiles of 3 rows of 4 outputs, 2.67
// for each output where F(2x2) has 4 and the direct sum 9.
//
// Along rows the points are 0, 1, -1, 2, -2 and infinity, down columns 0, 1, -1, 2 and infinity.
// The input transforms B have integer coefficients,
//   along:  (4,0,-5,0,1,0) (0,-4,-4,1,1,0) (0,4,-4,-1,1,0) (0,-2,-1,2,1,0) (0,2,-1,-2,1,0)
//           (0,4,0,-5,0,1)
//   down:   (2,-1,-2,1,0) (0,-2,-1,1,0) (0,2,-3,1,0) (0,-1,0,1,0) (0,2,-1,-2,1),
// of at most 10 and 6 in sum, so that V = B^T d B is within 30 times the highest code of 0 either
// way: a byte, if that is 4 at most, and so are its parts modulo 256. V is kept as u8, plus 128.
//
// The weight transforms G only become integers after multiplication by 24 and 6. These factors stay
// in the output transform, except where sums need not be multiplied then and U still fits int8: in
// the taps 0 and 5 of a row and the rows 0 and 4 of taps. With g a row or column of weights, U is
//   along:  6 g0, g0 + g1 + g2, g0 - g1 + g2, g0 + 2 g1 + 4 g2, g0 - 2 g1 + 4 g2, 6 g2
//   down:   3 g0, g0 + g1 + g2, g0 - g1 + g2, g0 + 2 g1 + 4 g2, 6 g2
// and with m the sums over channels of U V of a row or column of taps, the outputs y are
//   along:  24 y = (6 m0 - 4 m1 - 4 m2 + m3 + m4,  -4 m1 + 4 m2 + 2 m3 - 2 m4,
//                   -4 m1 - 4 m2 + 4 m3 + 4 m4,  -4 m1 + 4 m2 + 8 m3 - 8 m4 + 24 m5)
//   down:    6 y = (3 m0 - 3 m1 - m2 + m3,  -3 m1 + m2 + 2 m3,  -3 m1 - m2 + 4 m3 + 6 m4).
// Only in two taps does U not fit: (g0 +- 2 g1 + 4 g2) along and (g0 + 2 g1 + 4 g2) down is up to
// 147. There a product with 2 g2 of that row comes on top, so that the other U has 2 g2 as well.
//
// The columns of 24 y have the factors 1, 2, 4 and 4 in common and are kept without them. So what
// comes out is 144, 72, 36 and 36 times the accumulator; multiplied by the inverse of 9 modulo 2^32
// it becomes 16, 8, 4 and 4 times the accumulator.

#include "avx512vnni_layers.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#include "avx512vnni_f4x3_transform.h"

namespace mbq {
namespace {

constexpr int kMaxCode = 3;           // V is within 30 times that
constexpr int kInverse9 = 954437177;  // 9 * kInverse9 = 1 modulo 2^32

// Sanitizers see nothing of what inline assembly reads, and take minutes for all these registers.
// On all functions that end up in one: marks of where a variable is alive would stay behind
// otherwise.
#define MBQ_NOT_SANITIZED gnu::no_sanitize("address", "undefined")

// In assembly because the compiler, left to itself, does not keep 28 sums in registers.
[[gnu::always_inline]] inline void dot(__m512i& sum, __m512i codes, __m512i weights) {
  asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(codes), "v"(weights));
}

// The sums of two taps of B blocks of outputs of T tiles.
template <int B, int T>
using Pair = __m512i[2][B][T];

// sum[j][b][t] += sum over channels of V[j][t] U[j][b]. Shared: U is the same for both taps.
template <bool Shared, int B, int T>
[[gnu::always_inline, MBQ_NOT_SANITIZED]] inline void multiply(Pair<B, T>& sum, const uint8_t* v,
                                                               const uint8_t* u, int quads) {
  constexpr int kOfChunk = kChunk / kCodesPerByte;
  int left = quads;
  do {
    const uint8_t* from = v;
    const uint8_t* const end = v + (left < kOfChunk ? left : kOfChunk) * kCodesPerByte;
    do {
#pragma GCC unroll 2
      for (int j = 0; j < 2; ++j) {
        __m512i weights[B];
#pragma GCC unroll 2
        for (int b = 0; b < B; ++b) {
          weights[b] = _mm512_load_si512(u + ((Shared ? 0 : j * B) + b) * kVector);
        }
#pragma GCC unroll 7
        for (int t = 0; t < T; ++t) {
          __m512i codes;
          asm("vpbroadcastd %1, %0"
              : "=v"(codes)
              : "m"(*reinterpret_cast<const uint8_t (*)[kCodesPerByte]>(from +
                                                                        (j * T + t) * kVector)));
#pragma GCC unroll 2
          for (int b = 0; b < B; ++b) dot(sum[j][b][t], codes, weights[b]);
        }
      }
      from += kCodesPerByte;
      u += (Shared ? 1 : 2) * B * kVector;
    } while (from != end);
    left -= kOfChunk;
    v += kTapColumns * T * kVector;
  } while (left > 0);
}

template <int B, int T>
[[gnu::always_inline, MBQ_NOT_SANITIZED]] inline void start_at(Pair<B, T>& sum,
                                                               const uint8_t* starts) {
#pragma GCC unroll 2
  for (int j = 0; j < 2; ++j) {
#pragma GCC unroll 2
    for (int b = 0; b < B; ++b) {
      const __m512i start = _mm512_load_si512(starts + (j * B + b) * kVector);
#pragma GCC unroll 7
      for (int t = 0; t < T; ++t) sum[j][b][t] = start;
    }
  }
}

// What was stored is read from memory again: there are no registers to keep it in.
[[gnu::always_inline]] inline void forget() { asm volatile("" : : : "memory"); }

// Sums of a row of taps, transformed along it.
template <int B, int T>
using Row = __m512i[kOutColumns][B][T];

// Row `i` of taps of T tiles and B blocks of outputs, from the V of all rows and the unit's U.
template <int B, int T>
[[gnu::noinline, MBQ_NOT_SANITIZED]] void multiply_row(const F4x3& layer, const uint8_t* v,
                                                       const uint8_t* u, int i, Row<B, T>& out) {
  constexpr size_t kPairBytes = 2 * T * kVector;
  const int quads = layer.quads;
  const size_t u_bytes = static_cast<size_t>(quads + 1) * 2 * B * kVector;
  const uint8_t* const starts = u + i * kStarts * B * kVector;
  v += i * 3 * layer.chunks * kPairBytes;
  // Behind the wide row is half a pair more.
  u += kTapRows * kStarts * B * kVector + i * 3 * u_bytes + (i > kWideRow ? u_bytes / 2 : 0);
  Pair<B, T> sum;
  start_at<B, T>(sum, starts);
  multiply<false, B, T>(sum, v, u, quads);
#pragma GCC unroll 2
  for (int b = 0; b < B; ++b) {
#pragma GCC unroll 7
    for (int t = 0; t < T; ++t) {
      out[0][b][t] = _mm512_add_epi32(sum[0][b][t], sum[1][b][t]);
      out[1][b][t] = _mm512_sub_epi32(sum[0][b][t], sum[1][b][t]);
    }
  }
  forget();
  u += u_bytes;
  start_at<B, T>(sum, starts + 2 * B * kVector);
  multiply<false, B, T>(sum, v + kPairBytes, u, quads);
  u += u_bytes;
  if (i == kWideRow) {
    multiply<true, B, T>(sum, v + kPairBytes, u, quads);
    u += u_bytes / 2;
  }
  // The taps 0 and 5 are summed on top of what the others give to their outputs.
#pragma GCC unroll 2
  for (int b = 0; b < B; ++b) {
#pragma GCC unroll 7
    for (int t = 0; t < T; ++t) {
      const __m512i sum12 = out[0][b][t], difference12 = out[1][b][t];
      const __m512i sum34 = _mm512_add_epi32(sum[0][b][t], sum[1][b][t]);
      const __m512i difference34 = _mm512_sub_epi32(sum[0][b][t], sum[1][b][t]);
      out[1][b][t] = _mm512_sub_epi32(difference34, _mm512_add_epi32(difference12, difference12));
      out[2][b][t] = _mm512_sub_epi32(sum34, sum12);
      sum[0][b][t] = _mm512_sub_epi32(sum34, _mm512_slli_epi32(sum12, 2));
      sum[1][b][t] = _mm512_sub_epi32(_mm512_add_epi32(difference34, difference34), difference12);
    }
  }
  multiply<false, B, T>(sum, v + 2 * kPairBytes, u, quads);
#pragma GCC unroll 2
  for (int b = 0; b < B; ++b) {
#pragma GCC unroll 7
    for (int t = 0; t < T; ++t) {
      out[0][b][t] = sum[0][b][t];
      out[3][b][t] = sum[1][b][t];
    }
  }
}

// The accumulators of a column of a tile. m: its sums from row to row of taps, `stride` vectors
// apart.
[[gnu::always_inline]] inline void column_of(const __m512i* m, size_t stride, int shift,
                                             __m512i (&out)[kOutRows]) {
  const __m512i inverse = _mm512_set1_epi32(kInverse9);
  const __m512i m1 = m[stride], m2 = m[2 * stride], m3 = m[3 * stride];
  const __m512i thrice1 = _mm512_add_epi32(m1, _mm512_add_epi32(m1, m1));
  const __m512i p = _mm512_add_epi32(thrice1, m2), q = _mm512_sub_epi32(m2, thrice1);
  out[0] = _mm512_sub_epi32(_mm512_add_epi32(m[0], m3), p);
  out[1] = _mm512_add_epi32(q, _mm512_add_epi32(m3, m3));
  out[2] = _mm512_add_epi32(_mm512_sub_epi32(m[4 * stride], p), _mm512_slli_epi32(m3, 2));
#pragma GCC unroll 3
  for (int r = 0; r < kOutRows; ++r) {
    out[r] = _mm512_srai_epi32(_mm512_mullo_epi32(out[r], inverse), shift);
  }
}

// The outputs of a tile whose first is (y, x). m: its sums, `column` vectors from column to column
// and four times that from row to row of taps.
template <bool kDirect>
[[gnu::noinline]] void finish_tile(const Finish& finish, const ConvShape& shape, const __m512i* m,
                                   size_t column, int y, int x) {
  static constexpr int kShifts[kOutColumns] = {4, 3, 2, 2};
  __m512i out[kOutColumns][kOutRows];
#pragma GCC unroll 4
  for (int c = 0; c < kOutColumns; ++c) {
    column_of(m + c * column, kOutColumns * column, kShifts[c], out[c]);
  }
  const int rows = shape.out_height() - y, columns = shape.out_width() - x;
  const bool whole = columns >= kOutColumns && finish.mask == 0xffff;
#pragma GCC unroll 3
  for (int r = 0; r < kOutRows; ++r) {
    if (r >= rows) return;
    if (whole) [[likely]] {
      finish.template pairs<kDirect>(out[0][r], out[1][r], out[2][r], out[3][r], y + r, x, 0, 2);
      continue;
    }
#pragma GCC unroll 4
    for (int c = 0; c < kOutColumns; ++c) {
      if (c < columns) finish.template operator()<kDirect>(out[c][r], y + r, x + c);
    }
  }
}

template <bool kDirect, int B, int T>
void F4x3::group(const ConvCall& call, const F4x3& layer, const uint8_t* v, const uint8_t* u,
                 int first, const Finish* finish, Ahead& ahead) {
  Row<B, T> rows[kTapRows];
  for (int i = 0; i < kTapRows; ++i) {
    ahead.fetch();
    if (!kDirect && layer.prefetch && i < kOutRows) {
      for (int t = first; t < first + T; ++t) {
        prefetch_row<kOutColumns, B>(call.output, call.shape, t / layer.columns * kOutRows + i,
                                     t % layer.columns * kOutColumns, finish->first);
      }
    }
    multiply_row<B, T>(layer, v, u, i, rows[i]);
  }
  for (int t = 0; t < T; ++t) {
    const int y = (first + t) / layer.columns * kOutRows;
    const int x = (first + t) % layer.columns * kOutColumns;
    for (int b = 0; b < B; ++b) {
      finish_tile<kDirect>(finish[b], call.shape, &rows[0][0][b][t], B * T, y, x);
    }
  }
}

bool supports(const ConvShape& shape, int highest) {
  // 144 times the accumulator in int32:
  constexpr int kMostInputs = INT32_MAX / (144 * 27 * kMaxCode);
  return shape.kernel_height == 3 && shape.kernel_width == 3 && shape.stride == 1 &&
         highest <= kMaxCode && shape.inputs <= kMostInputs;
}

}  // namespace

constexpr ConvKernel avx512vnni::kF4x3 =
    StripKernel<F4x3>::prepared("u8s2_conv3x3s1_f4x3_7x32__avx512vnni", supports);
constexpr ConvKernel avx512vnni::kF4x3Unpacking =
    StripKernel<F4x3>::unpacking("u8s2_conv3x3s1_f4x3_unpacking_7x32__avx512vnni", supports);

}  // namespace mbq

#endif
