// AVX-512 with VNNI: vpdpbusd multiplies four codes (uint8) by four weights (int8) for each of 16
// outputs and adds them to int32 without saturation.

#include "../kernels.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

// clang-format off: the second builds on the first.
#include "tiled_conv.h"
#include "depthwise.h"
// clang-format on

namespace mbq {
namespace {

// Codes and weights of a 2-bit layer.
struct Codes {
  static __m512i dot(__m512i acc, __m512i activations, __m512i weights) {
    return _mm512_dpbusd_epi32(acc, activations, weights);
  }
};

// Pixels and weights of the stem, both int16.
struct Pixels {
  static __m512i dot(__m512i acc, __m512i pixels, __m512i weights) {
    return _mm512_dpwssd_epi32(acc, pixels, weights);
  }
};

__m512 clamp(__m512 value, __m512 low, __m512 high) {
  // max and min return their second operand for values that are not a number: low.
  return _mm512_min_ps(_mm512_max_ps(value, low), high);
}

// The limits are integers, so clamping before rounding gives the same code and keeps the
// conversion to int32 in range. vcvtps2dq rounds half to even.
__m128i to_codes(__m512 value, __m512 low, __m512 high) {
  return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(clamp(value, low, high)));
}

// The finish of one block of outputs of `P` pixels.
template <int P>
[[gnu::always_inline]] inline void finish(const __m512i (&acc)[P], const TileOutput& tile,
                                          int block) {
  const ConvOutput& out = *tile.output;
  const int first = tile.first_output + block * kOutputBlock;
  const int left = tile.outputs - first;
  const __mmask16 mask = static_cast<__mmask16>(left >= kOutputBlock ? 0xffff : (1 << left) - 1);
  const __m512 scale = _mm512_maskz_loadu_ps(mask, out.scale + first);
  const __m512 bias = _mm512_maskz_loadu_ps(mask, out.bias + first);
  size_t position = tile.position + block * kOutputBlock;
  if (out.codes != nullptr) {
    const __m512 low = _mm512_set1_ps(static_cast<float>(out.lowest));
    const __m512 high = _mm512_set1_ps(static_cast<float>(out.highest));
    for (int p = 0; p < P; ++p, position += tile.outputs) {
      const __m512 value = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[p]), scale), bias);
      _mm_mask_storeu_epi8(out.codes + position, mask, to_codes(value, low, high));
    }
    return;
  }
  for (int p = 0; p < P; ++p, position += tile.outputs) {
    __m512 value = _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc[p]), scale), bias);
    if (out.residual != nullptr) {
      value = _mm512_add_ps(value, _mm512_maskz_loadu_ps(mask, out.residual + position));
    }
    if (out.relu) value = _mm512_max_ps(value, _mm512_setzero_ps());
    _mm512_mask_storeu_ps(out.stream + position, mask, value);
  }
}

template <typename Operand, int P, int B>
void tile(const TileInput& input, const TileOutput& output) {
  const size_t block_bytes = static_cast<size_t>(input.rows) * input.groups * kVectorBytes;
  __m512i acc[B][P];
  for (int b = 0; b < B; ++b) {
    for (int p = 0; p < P; ++p) acc[b][p] = _mm512_setzero_si512();
  }
  const uint8_t* weights = input.weights;
  for (int row = 0; row < input.rows; ++row) {
    const uint8_t* from = input.pixels + row * input.row_step;
    for (int group = 0; group < input.groups; ++group, from += 4, weights += kVectorBytes) {
      __m512i w[B];
      for (int b = 0; b < B; ++b) w[b] = _mm512_load_si512(weights + b * block_bytes);
      for (int p = 0; p < P; ++p) {
        int32_t value;
        memcpy(&value, from + p * input.pixel_step, sizeof value);
        const __m512i activations = _mm512_set1_epi32(value);
        for (int b = 0; b < B; ++b) acc[b][p] = Operand::dot(acc[b][p], activations, w[b]);
      }
    }
  }
  for (int b = 0; b < B; ++b) finish<P>(acc[b], output, b);
}

struct Avx512Vnni {
  static constexpr int kMaxPixels[2] = {8, 8};

  template <typename Operand>
  struct Tiles {
    static constexpr Tile table[2][8] = {
        {tile<Operand, 1, 1>, tile<Operand, 2, 1>, tile<Operand, 3, 1>, tile<Operand, 4, 1>,
         tile<Operand, 5, 1>, tile<Operand, 6, 1>, tile<Operand, 7, 1>, tile<Operand, 8, 1>},
        {tile<Operand, 1, 2>, tile<Operand, 2, 2>, tile<Operand, 3, 2>, tile<Operand, 4, 2>,
         tile<Operand, 5, 2>, tile<Operand, 6, 2>, tile<Operand, 7, 2>, tile<Operand, 8, 2>},
    };
  };
  static constexpr auto& kCodeTiles = Tiles<Codes>::table;
  static constexpr auto& kPixelTiles = Tiles<Pixels>::table;

  // 16 bytes of packed codes become 64 int8 weights. Shifting by 6, 12 and 18 brings the four codes
  // of a byte to bits 0, 8, 16 and 24; what else lands around them is masked off.
  static void widen(const uint8_t* packed, uint8_t* weights) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(packed));
    const __m512i byte = _mm512_cvtepu8_epi32(bytes);
    const __m512i low = _mm512_or_si512(byte, _mm512_slli_epi32(byte, 6));
    const __m512i high = _mm512_or_si512(_mm512_slli_epi32(byte, 12), _mm512_slli_epi32(byte, 18));
    const __m512i codes =
        _mm512_and_si512(_mm512_or_si512(low, high), _mm512_set1_epi32(0x03030303));
    const __m512i doubled = _mm512_add_epi8(codes, codes);
    _mm512_store_si512(weights, _mm512_sub_epi8(doubled, _mm512_set1_epi8(3)));
  }

  // Depthwise: 32 channels as int16.
  using Words = __m512i;
  static constexpr int kLanes = 32;
  static Words no_words() { return _mm512_setzero_si512(); }
  static Words load_words(const int16_t* from) { return _mm512_load_si512(from); }
  static Words widen_codes(const uint8_t* from) {
    return _mm512_cvtepu8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  }
  static Words multiply_add(Words sum, Words codes, Words weights) {
    return _mm512_add_epi16(sum, _mm512_mullo_epi16(codes, weights));
  }

  // 16 bytes, one for each channel, become the int16 weights of up to 4 taps, kLanes apart.
  static void widen_taps(const uint8_t* packed, int taps, int16_t* weights) {
    const __m256i codes =
        _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)));
    for (int tap = 0; tap < taps; ++tap, weights += kLanes) {
      const __m256i code =
          _mm256_and_si256(_mm256_srli_epi16(codes, 2 * tap), _mm256_set1_epi16(3));
      _mm256_store_si256(reinterpret_cast<__m256i*>(weights),
                         _mm256_sub_epi16(_mm256_add_epi16(code, code), _mm256_set1_epi16(3)));
    }
  }

  template <int P>
  [[gnu::always_inline]] static void finish_words(const Words (&sums)[P],
                                                  const TileOutput& output) {
    __m512i acc[P];
    for (int p = 0; p < P; ++p) {
      acc[p] = _mm512_cvtepi16_epi32(_mm512_castsi512_si256(sums[p]));
    }
    finish<P>(acc, output, 0);
    if (output.outputs - output.first_output <= kOutputBlock) return;
    for (int p = 0; p < P; ++p) {
      acc[p] = _mm512_cvtepi16_epi32(_mm512_extracti64x4_epi64(sums[p], 1));
    }
    finish<P>(acc, output, 1);
  }

  // Codes of `count` elements of the stream from `position` on.
  static void quantize(const ConvInput& input, size_t position, size_t count, uint8_t* codes) {
    const float* const x = input.stream + position;
    const __m512 low = _mm512_setzero_ps();
    const __m512 high = _mm512_set1_ps(static_cast<float>(input.highest));
    const __m512 scale = _mm512_set1_ps(input.scale), offset = _mm512_set1_ps(input.offset);
    for (size_t i = 0; i < count; i += 16) {
      const size_t left = count - i;
      const __mmask16 mask = static_cast<__mmask16>(left >= 16 ? 0xffff : (1u << left) - 1);
      const __m512 value = _mm512_maskz_loadu_ps(mask, x + i);
      const __m512 scaled = _mm512_add_ps(_mm512_mul_ps(value, scale), offset);
      _mm_mask_storeu_epi8(codes + i, mask, to_codes(scaled, low, high));
    }
  }
};

}  // namespace

const KernelSet* avx512vnni_kernels() {
  static constexpr KernelSet kernels{"avx512vnni", conv<Avx512Vnni>, depthwise<Avx512Vnni>,
                                     stem<Avx512Vnni>};
  return &kernels;
}

}  // namespace mbq

#else

namespace mbq {
const KernelSet* avx512vnni_kernels() { return nullptr; }
}  // namespace mbq

#endif
