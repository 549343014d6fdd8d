// Depthwise convolution for AVX2: lanes are 16 channels in int16, which holds every sum.

#pragma once

#include "avx2_finish.h"

namespace mbq {
namespace {

constexpr int kDepthwisePixels = 6;

size_t depthwise_block_bytes(const ConvShape& shape) {
  return static_cast<size_t>(shape.kernel_height) * shape.kernel_width * 32;
}

size_t depthwise_prepared_bytes(const ConvShape& shape) {
  return round_up(shape.outputs, kOutputBlock) / kOutputBlock * depthwise_block_bytes(shape);
}

// [block of 16 channels][tap][16] int16
void depthwise_prepare(const ConvShape& shape, const uint8_t* payload, void* prepared) {
  const int taps = shape.kernel_height * shape.kernel_width;
  const __m256i three = _mm256_set1_epi16(3);
  __m256i* to = static_cast<__m256i*>(prepared);
  for (int first = 0; first < shape.outputs; first += kOutputBlock) {
    __m256i bytes = three;
    for (int tap = 0; tap < taps; ++tap) {
      if (tap % kCodesPerByte == 0) {
        bytes = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(payload)));
        payload += kOutputBlock;
      }
      const __m256i code = _mm256_and_si256(bytes, three);
      _mm256_store_si256(to++, _mm256_sub_epi16(_mm256_add_epi16(code, code), three));
      bytes = _mm256_srli_epi16(bytes, 2);
    }
  }
}

// `P` neighbouring pixels of an output row.
template <bool kDirect, int P>
[[gnu::always_inline]] inline void depthwise_pixels(const ConvCall& call, const uint8_t* window,
                                                    const __m256i* weights, const Finish& finish,
                                                    int y, int x) {
  const ConvShape& shape = call.shape;
  const size_t step = shape.stride * call.input.pixel;
  __m256i sum[P];
  for (int p = 0; p < P; ++p) sum[p] = _mm256_setzero_si256();
  for (int ky = 0; ky < shape.kernel_height; ++ky, window += call.input.row) {
    const uint8_t* from = window;
    for (int kx = 0; kx < shape.kernel_width; ++kx, from += call.input.pixel) {
      const __m256i weight = _mm256_load_si256(weights++);
      for (int p = 0; p < P; ++p) {
        const __m128i* const at = reinterpret_cast<const __m128i*>(from + p * step);
        const __m256i codes = _mm256_cvtepu8_epi16(_mm_loadu_si128(at));
        sum[p] = _mm256_add_epi16(sum[p], _mm256_mullo_epi16(codes, weight));
      }
    }
  }
  const auto result = [&](int p) __attribute__((always_inline)) {
    return Accumulators{_mm256_cvtepi16_epi32(_mm256_castsi256_si128(sum[p])),
                        _mm256_cvtepi16_epi32(_mm256_extracti128_si256(sum[p], 1)), y, x + p};
  };
  for (int p = 0; p + 2 <= P; p += 2) finish.operator()<kDirect>(result(p), result(p + 1));
  if constexpr (P % 2 != 0) finish.operator()<kDirect>(result(P - 1));
}

template <bool kDirect>
void depthwise_rows(void* context, int, int begin, int end) {
  const ConvCall& call = *static_cast<const ConvCall*>(context);
  const ConvShape& shape = call.shape;
  const ptrdiff_t row = call.input.row, pixel = call.input.pixel;
  const uint8_t* block = static_cast<const uint8_t*>(call.prepared);
  for (int first = 0; first < shape.outputs; first += kOutputBlock) {
    const __m256i* const weights = reinterpret_cast<const __m256i*>(block);
    const Finish finish(call.output, shape, first);
    for (int y = begin; y < end; ++y) {
      const uint8_t* window = call.input.origin + first - shape.pad * pixel +
                              (static_cast<ptrdiff_t>(y) * shape.stride - shape.pad) * row;
      int x = 0;
      for (; x + kDepthwisePixels <= shape.out_width(); x += kDepthwisePixels) {
        depthwise_pixels<kDirect, kDepthwisePixels>(call, window, weights, finish, y, x);
        window += kDepthwisePixels * shape.stride * pixel;
      }
      for (; x < shape.out_width(); ++x, window += shape.stride * pixel) {
        depthwise_pixels<kDirect, 1>(call, window, weights, finish, y, x);
      }
    }
    block += depthwise_block_bytes(shape);
  }
}

void depthwise(const ConvCall& call, const Parallel& parallel) {
  parallel.run(parallel.self, call.shape.out_height(),
               call.output.direct ? depthwise_rows<true> : depthwise_rows<false>,
               const_cast<ConvCall*>(&call));
}

bool depthwise_supports(const ConvShape& shape, int) {
  return shape.kernel_height <= kMaxDepthwiseKernel && shape.kernel_width <= kMaxDepthwiseKernel;
}

}  // namespace
}  // namespace mbq
