// What every AVX-512 convolution does with 16 accumulators of one pixel.
//
// Anonymous: this header is compiled with other flags than the rest, and a linker that merged
// copies could keep one that another CPU cannot run. Include after <immintrin.h>.

#include "../layers.h"

namespace mbq {
namespace {

// Codes of the 16 outputs of one pixel. max and min return their second operand for values that are
// not a number: low. The limits are integers, so clamping before rounding gives the same code and
// keeps the conversion in range.
[[gnu::always_inline]] inline __m128i codes_of(__m512 value, __m512 low, __m512 high) {
  return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(value, low), high)));
}

// Bytes of 4 pixels with outputs 4 l .. 4 l + 3 of each in 128-bit lane l, to pixels in lanes.
[[gnu::always_inline]] inline __m512i pixels_of(__m512i bytes) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  return _mm512_permutexvar_epi32(order, bytes);
}

// Codes of 4 pixels, one in each 128-bit lane. What is not a number passes the minimum and, like
// all that is below any int32, becomes the least int32; packing saturates to 0 from below, and the
// maximum of bytes does the rest.
[[gnu::always_inline]] inline __m512i codes_of(__m512 v0, __m512 v1, __m512 v2, __m512 v3,
                                               __m512i low_bytes, __m512 high) {
  const __m512i words01 = _mm512_packus_epi32(_mm512_cvtps_epi32(_mm512_min_ps(high, v0)),
                                              _mm512_cvtps_epi32(_mm512_min_ps(high, v1)));
  const __m512i words23 = _mm512_packus_epi32(_mm512_cvtps_epi32(_mm512_min_ps(high, v2)),
                                              _mm512_cvtps_epi32(_mm512_min_ps(high, v3)));
  // Packing stays within 128-bit lanes.
  return pixels_of(_mm512_max_epu8(_mm512_packus_epi16(words01, words23), low_bytes));
}

// The constants of 16 consecutive outputs; made once for each block of outputs.
struct Finish {
  const LayerOutput* output;
  int first, outputs, width;  // of the outputs; of all of them; of the output image
  __mmask16 mask;
  __m512 scale, bias;
  __m512 low[kMaxCodeOutputs], high[kMaxCodeOutputs];
  __m512i low_bytes[kMaxCodeOutputs];
  __m512 code_scale[kMaxCodeOutputs], code_offset[kMaxCodeOutputs];

  // factor: a power of two, where accumulators come multiplied by its inverse. Exact unless a scale
  // becomes subnormal, which callers exclude.
  Finish(const LayerOutput& out, const ConvShape& shape, int first_output, float factor = 1.0f)
      : output(&out), first(first_output), outputs(shape.outputs), width(shape.out_width()) {
    const int left = outputs - first;
    mask = static_cast<__mmask16>(left >= kOutputBlock ? 0xffff : (1 << left) - 1);
    scale = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, out.scale + first), _mm512_set1_ps(factor));
    bias = _mm512_maskz_loadu_ps(mask, out.bias + first);
    for (int i = 0; i < (out.direct ? 1 : out.code_outputs); ++i) {
      low[i] = _mm512_set1_ps(static_cast<float>(out.codes[i].lowest));
      high[i] = _mm512_set1_ps(static_cast<float>(out.codes[i].highest));
      low_bytes[i] = _mm512_set1_epi8(static_cast<char>(out.codes[i].lowest));
      code_scale[i] = _mm512_set1_ps(out.codes[i].scale);
      code_offset[i] = _mm512_set1_ps(out.codes[i].offset);
    }
  }

  // kDirect is output->direct, known where tiles are chosen.
  template <bool kDirect>
  [[gnu::always_inline]] void operator()(__m512i acc, int y, int x) const {
    __m512 value = affine(acc);
    if constexpr (kDirect) {
      const CodeImage& image = output->codes[0].image;
      _mm_mask_storeu_epi8(image.origin + y * image.row + x * image.pixel + first, mask,
                           codes_of(value, low[0], high[0]));
      return;
    }
    const size_t position = (static_cast<size_t>(y) * width + x) * outputs + first;
    if (output->residual != nullptr) {
      value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, output->residual + position));
    }
    // Zero where value is not a number, as in the definition.
    if (output->relu) value = _mm512_max_ps(value, _mm512_setzero_ps());
    if (output->stream != nullptr) _mm512_mask_storeu_ps(output->stream + position, mask, value);
    for (int i = 0; i < output->code_outputs; ++i) {
      const CodeImage& image = output->codes[i].image;
      _mm_mask_storeu_epi8(image.origin + y * image.row + x * image.pixel + first, mask,
                           codes_of(recode(value, i), low[i], high[i]));
    }
  }

  // The pixels (y, x), (y, x + 1), (y + 1, x), (y + 1, x + 1), all of them in the image, of a whole
  // block of outputs.
  template <bool kDirect>
  [[gnu::always_inline]] void square(__m512i acc00, __m512i acc01, __m512i acc10, __m512i acc11,
                                     int y, int x) const {
    pairs<kDirect>(acc00, acc01, acc10, acc11, y, x, 1, 0);
  }

  // Likewise the two pixels from (y, x) on and the two from (y + down, x + right) on.
  template <bool kDirect>
  [[gnu::always_inline]] void pairs(__m512i acc00, __m512i acc01, __m512i acc10, __m512i acc11,
                                    int y, int x, int down, int right) const {
    __m512 v00 = affine(acc00), v01 = affine(acc01), v10 = affine(acc10), v11 = affine(acc11);
    if constexpr (kDirect) {
      store_pairs(output->codes[0].image, y, x, down, right,
                  codes_of(v00, v01, v10, v11, low_bytes[0], high[0]));
      return;
    }
    const size_t upper = (static_cast<size_t>(y) * width + x) * outputs + first;
    const size_t lower = upper + (static_cast<size_t>(down) * width + right) * outputs;
    if (output->residual != nullptr) {
      const float* const residual = output->residual;
      v00 = _mm512_add_ps(v00, _mm512_loadu_ps(residual + upper));
      v01 = _mm512_add_ps(v01, _mm512_loadu_ps(residual + upper + outputs));
      v10 = _mm512_add_ps(v10, _mm512_loadu_ps(residual + lower));
      v11 = _mm512_add_ps(v11, _mm512_loadu_ps(residual + lower + outputs));
    }
    if (output->relu) {
      const __m512 zero = _mm512_setzero_ps();
      v00 = _mm512_max_ps(v00, zero);
      v01 = _mm512_max_ps(v01, zero);
      v10 = _mm512_max_ps(v10, zero);
      v11 = _mm512_max_ps(v11, zero);
    }
    if (output->stream != nullptr) {
      float* const stream = output->stream;
      _mm512_storeu_ps(stream + upper, v00);
      _mm512_storeu_ps(stream + upper + outputs, v01);
      _mm512_storeu_ps(stream + lower, v10);
      _mm512_storeu_ps(stream + lower + outputs, v11);
    }
    for (int i = 0; i < output->code_outputs; ++i) {
      store_pairs(output->codes[i].image, y, x, down, right,
                  codes_of(recode(v00, i), recode(v01, i), recode(v10, i), recode(v11, i),
                           low_bytes[i], high[i]));
    }
  }

  // Codes of those pixels, one in each 128-bit lane.
  [[gnu::always_inline]] void store_pairs(const CodeImage& image, int y, int x, int down, int right,
                                          __m512i codes) const {
    uint8_t* const upper = image.origin + y * image.row + x * image.pixel + first;
    uint8_t* const lower = upper + down * image.row + right * image.pixel;
    const size_t pixel = image.pixel;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(upper), _mm512_castsi512_si128(codes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(upper + pixel),
                     _mm512_extracti32x4_epi32(codes, 1));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(lower), _mm512_extracti32x4_epi32(codes, 2));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(lower + pixel),
                     _mm512_extracti32x4_epi32(codes, 3));
  }

 private:
  // Two roundings; a fused multiply-add would have one.
  [[gnu::always_inline]] __m512 affine(__m512i acc) const {
    return _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale), bias);
  }
  [[gnu::always_inline]] __m512 recode(__m512 value, int i) const {
    return _mm512_add_ps(_mm512_mul_ps(value, code_scale[i]), code_offset[i]);
  }
};

}  // namespace
}  // namespace mbq
