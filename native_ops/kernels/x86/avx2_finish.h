// What every AVX2 convolution does with the 16 accumulators of a pixel, and how codes are made.
//
// Anonymous, as all of these headers: they are compiled with the flags of AVX2 and of AVX-VNNI, and
// a linker that merged copies could keep one that another CPU cannot run.

#pragma once

#include <immintrin.h>
#include <string.h>

#include "../layers.h"

namespace mbq {
namespace {

// 16 values of one pixel.
struct Values {
  __m256 low, high;
};

[[gnu::always_inline]] inline Values multiply_add(Values x, __m256 scale_low, __m256 scale_high,
                                                  __m256 offset_low, __m256 offset_high) {
  // Two roundings; a fused multiply-add would have one.
  return {_mm256_add_ps(_mm256_mul_ps(x.low, scale_low), offset_low),
          _mm256_add_ps(_mm256_mul_ps(x.high, scale_high), offset_high)};
}

// max and min return their second operand for values that are not a number: the lowest code. The
// limits are integers, so clamping before rounding gives the same code and keeps the conversion in
// range.
[[gnu::always_inline]] inline __m256i rounded(__m256 value, __m256 lowest, __m256 highest) {
  return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(value, lowest), highest));
}

[[gnu::always_inline]] inline __m128i codes_of(Values x, __m256 lowest, __m256 highest) {
  // Packing stays within 128-bit lanes: outputs 0-3, 8-11 in the lower one, 4-7, 12-15 in the
  // upper.
  const __m256i words =
      _mm256_packus_epi32(rounded(x.low, lowest, highest), rounded(x.high, lowest, highest));
  const __m128i bytes =
      _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  return _mm_shuffle_epi32(bytes, _MM_SHUFFLE(3, 1, 2, 0));
}

[[gnu::always_inline]] inline void store_codes(uint8_t* to, __m128i codes, int count) {
  if (count >= kOutputBlock) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), codes);
    return;
  }
  alignas(16) uint8_t all[kOutputBlock];
  _mm_store_si128(reinterpret_cast<__m128i*>(all), codes);
  for (int i = 0; i < count; ++i) to[i] = all[i];
}

// The lanes of 8 int32 that are below `count`.
[[gnu::always_inline]] inline __m256i lanes_below(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

// The first `count` of 16 values.
[[gnu::always_inline]] inline Values load_values(const float* from, int count) {
  if (count >= kOutputBlock) return {_mm256_loadu_ps(from), _mm256_loadu_ps(from + 8)};
  Values x{_mm256_maskload_ps(from, lanes_below(count)), _mm256_setzero_ps()};
  if (count > 8) x.high = _mm256_maskload_ps(from + 8, lanes_below(count - 8));
  return x;
}

[[gnu::always_inline]] inline void store_values(float* to, Values x, int count) {
  if (count >= kOutputBlock) {
    _mm256_storeu_ps(to, x.low);
    _mm256_storeu_ps(to + 8, x.high);
    return;
  }
  _mm256_maskstore_ps(to, lanes_below(count), x.low);
  if (count > 8) _mm256_maskstore_ps(to + 8, lanes_below(count - 8), x.high);
}

// A code output's constants.
struct Recode {
  CodeImage image;
  __m256 scale, offset, lowest, highest;

  void set(const CodeOutput& codes) {
    image = codes.image;
    scale = _mm256_set1_ps(codes.scale);
    offset = _mm256_set1_ps(codes.offset);
    lowest = _mm256_set1_ps(static_cast<float>(codes.lowest));
    highest = _mm256_set1_ps(static_cast<float>(codes.highest));
  }
  // `count` channels from `first` on of pixel (y, x).
  [[gnu::always_inline]] void store(Values value, int y, int x, int first, int count) const {
    store_codes(image.origin + y * image.row + x * image.pixel + first,
                codes_of(value, lowest, highest), count);
  }
  [[gnu::always_inline]] void store_scaled(Values value, int y, int x, int first, int count) const {
    store(multiply_add(value, scale, scale, offset, offset), y, x, first, count);
  }
};

// The constants of 16 consecutive outputs; made once for each block of outputs.
struct Finish {
  const float* residual;
  float* stream;
  bool relu;
  int code_outputs, first, count, outputs, width;
  Values scale, bias;
  Recode codes[kMaxCodeOutputs];

  Finish(const LayerOutput& output, const ConvShape& shape, int first_output)
      : residual(output.residual),
        stream(output.stream),
        relu(output.relu),
        code_outputs(output.code_outputs),
        first(first_output),
        count(shape.outputs - first_output < kOutputBlock ? shape.outputs - first_output
                                                          : kOutputBlock),
        outputs(shape.outputs),
        width(shape.out_width()) {
    scale = load_values(output.scale + first, count);
    bias = load_values(output.bias + first, count);
    for (int i = 0; i < (output.direct ? 1 : code_outputs); ++i) codes[i].set(output.codes[i]);
  }

  // kDirect is LayerOutput::direct, known where tiles are chosen.
  template <bool kDirect>
  [[gnu::always_inline]] void operator()(__m256i low, __m256i high, int y, int x) const {
    Values value = multiply_add({_mm256_cvtepi32_ps(low), _mm256_cvtepi32_ps(high)}, scale.low,
                                scale.high, bias.low, bias.high);
    if constexpr (kDirect) {
      codes[0].store(value, y, x, first, count);
      return;
    }
    const size_t position = (static_cast<size_t>(y) * width + x) * outputs + first;
    if (residual != nullptr) {
      const Values more = load_values(residual + position, count);
      value = {_mm256_add_ps(value.low, more.low), _mm256_add_ps(value.high, more.high)};
    }
    if (relu) {
      // Zero where value is not a number, as in the definition.
      const __m256 zero = _mm256_setzero_ps();
      value = {_mm256_max_ps(value.low, zero), _mm256_max_ps(value.high, zero)};
    }
    if (stream != nullptr) store_values(stream + position, value, count);
    for (int i = 0; i < code_outputs; ++i) codes[i].store_scaled(value, y, x, first, count);
  }
};

}  // namespace
}  // namespace mbq
