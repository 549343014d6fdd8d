// What every AVX-512 convolution does with 16 accumulators of one pixel.
//
// Anonymous: this header is compiled with other flags than the rest, and a linker that merged
// copies could keep one that another CPU cannot run. Include after <immintrin.h>.

#include "../layers.h"

namespace mbq {
namespace {

// max and min return their second operand for values that are not a number: low. The limits are
// integers, so clamping before rounding gives the same code and keeps the conversion in range.
[[gnu::always_inline]] inline __m128i codes_of(__m512 value, __m512 low, __m512 high) {
  return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(_mm512_min_ps(_mm512_max_ps(value, low), high)));
}

// The constants of 16 consecutive outputs; made once for each block of outputs.
struct Finish {
  const LayerOutput* output;
  int first, outputs, width;  // of the outputs; of all of them; of the output image
  __mmask16 mask;
  __m512 scale, bias;
  __m512 low[kMaxCodeOutputs], high[kMaxCodeOutputs];
  __m512 code_scale[kMaxCodeOutputs], code_offset[kMaxCodeOutputs];

  // factor: a power of two, where accumulators come multiplied by its inverse; exact.
  Finish(const LayerOutput& out, const ConvShape& shape, int first_output, float factor = 1.0f)
      : output(&out), first(first_output), outputs(shape.outputs), width(shape.out_width()) {
    const int left = outputs - first;
    mask = static_cast<__mmask16>(left >= kOutputBlock ? 0xffff : (1 << left) - 1);
    scale = _mm512_mul_ps(_mm512_maskz_loadu_ps(mask, out.scale + first), _mm512_set1_ps(factor));
    bias = _mm512_maskz_loadu_ps(mask, out.bias + first);
    for (int i = 0; i < (out.direct ? 1 : out.code_outputs); ++i) {
      low[i] = _mm512_set1_ps(static_cast<float>(out.codes[i].lowest));
      high[i] = _mm512_set1_ps(static_cast<float>(out.codes[i].highest));
      code_scale[i] = _mm512_set1_ps(out.codes[i].scale);
      code_offset[i] = _mm512_set1_ps(out.codes[i].offset);
    }
  }

  // kDirect is output->direct, known where tiles are chosen.
  template <bool kDirect>
  [[gnu::always_inline]] void operator()(__m512i acc, int y, int x) const {
    __m512 value = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale), bias);
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
      const __m512 scaled = _mm512_add_ps(_mm512_mul_ps(value, code_scale[i]), code_offset[i]);
      _mm_mask_storeu_epi8(image.origin + y * image.row + x * image.pixel + first, mask,
                           codes_of(scaled, low[i], high[i]));
    }
  }
};

}  // namespace
}  // namespace mbq
