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

// Codes of two pixels, one in each 128-bit lane. What is not a number passes the minimum and, like
// all that is below any int32, becomes the least int32; packing saturates to 0 from below, and the
// maximum of bytes does the rest.
[[gnu::always_inline]] inline __m256i codes_of(Values x0, Values x1, __m256i lowest,
                                               __m256 highest) {
  const auto rounded_below = [&](__m256 value) __attribute__((always_inline)) {
    return _mm256_cvtps_epi32(_mm256_min_ps(highest, value));
  };
  const __m256i words0 = _mm256_packus_epi32(rounded_below(x0.low), rounded_below(x0.high));
  const __m256i words1 = _mm256_packus_epi32(rounded_below(x1.low), rounded_below(x1.high));
  const __m256i bytes = _mm256_max_epu8(_mm256_packus_epi16(words0, words1), lowest);
  return _mm256_permutevar8x32_epi32(bytes, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
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
  __m256i lowest_bytes;

  void set(const CodeOutput& codes) {
    image = codes.image;
    scale = _mm256_set1_ps(codes.scale);
    offset = _mm256_set1_ps(codes.offset);
    lowest = _mm256_set1_ps(static_cast<float>(codes.lowest));
    lowest_bytes = _mm256_set1_epi8(static_cast<char>(codes.lowest));
    highest = _mm256_set1_ps(static_cast<float>(codes.highest));
  }
  [[gnu::always_inline]] Values scaled(Values value) const {
    return multiply_add(value, scale, scale, offset, offset);
  }
  [[gnu::always_inline]] uint8_t* at(int y, int x) const {
    return image.origin + y * image.row + x * image.pixel;
  }
  // `count` channels from `first` on of a pixel.
  [[gnu::always_inline]] void store(Values value, int y, int x, int first, int count) const {
    store_codes(at(y, x) + first, codes_of(value, lowest, highest), count);
  }
  // 16 channels of two pixels.
  [[gnu::always_inline]] void store(Values value0, Values value1, uint8_t* to0,
                                    uint8_t* to1) const {
    const __m256i codes = codes_of(value0, value1, lowest_bytes, highest);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to0), _mm256_castsi256_si128(codes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to1), _mm256_extracti128_si256(codes, 1));
  }
};

// Accumulators of 16 outputs of a pixel.
struct Accumulators {
  __m256i low, high;
  int y, x;
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
  [[gnu::always_inline]] void operator()(const Accumulators& acc) const {
    Values value = affine(acc);
    if constexpr (kDirect) {
      codes[0].store(value, acc.y, acc.x, first, count);
      return;
    }
    const size_t position = (static_cast<size_t>(acc.y) * width + acc.x) * outputs + first;
    value = add_and_store(value, position, count);
    for (int i = 0; i < code_outputs; ++i) {
      codes[i].store(codes[i].scaled(value), acc.y, acc.x, first, count);
    }
  }

  // Two pixels, which is cheaper than one twice.
  template <bool kDirect>
  [[gnu::always_inline]] void operator()(const Accumulators& acc0, const Accumulators& acc1) const {
    if (count < kOutputBlock) {
      operator()<kDirect>(acc0);
      operator()<kDirect>(acc1);
      return;
    }
    Values value0 = affine(acc0), value1 = affine(acc1);
    if constexpr (kDirect) {
      codes[0].store(value0, value1, codes[0].at(acc0.y, acc0.x) + first,
                     codes[0].at(acc1.y, acc1.x) + first);
      return;
    }
    const size_t position0 = (static_cast<size_t>(acc0.y) * width + acc0.x) * outputs + first;
    const size_t position1 = (static_cast<size_t>(acc1.y) * width + acc1.x) * outputs + first;
    value0 = add_and_store(value0, position0, kOutputBlock);
    value1 = add_and_store(value1, position1, kOutputBlock);
    for (int i = 0; i < code_outputs; ++i) {
      codes[i].store(codes[i].scaled(value0), codes[i].scaled(value1),
                     codes[i].at(acc0.y, acc0.x) + first, codes[i].at(acc1.y, acc1.x) + first);
    }
  }

 private:
  [[gnu::always_inline]] Values affine(const Accumulators& acc) const {
    return multiply_add({_mm256_cvtepi32_ps(acc.low), _mm256_cvtepi32_ps(acc.high)}, scale.low,
                        scale.high, bias.low, bias.high);
  }

  // Residual, ReLU and stream.
  [[gnu::always_inline]] Values add_and_store(Values value, size_t position, int channels) const {
    if (residual != nullptr) {
      const Values more = load_values(residual + position, channels);
      value = {_mm256_add_ps(value.low, more.low), _mm256_add_ps(value.high, more.high)};
    }
    if (relu) {
      // Zero where value is not a number, as in the definition.
      const __m256 zero = _mm256_setzero_ps();
      value = {_mm256_max_ps(value.low, zero), _mm256_max_ps(value.high, zero)};
    }
    if (stream != nullptr) store_values(stream + position, value, channels);
    return value;
  }
};

}  // namespace
}  // namespace mbq
