// AVX2: vpmaddubsw multiplies codes (uint8) by weights (int8) and adds neighbours into int16.
//
// Two products are at most 2 * 255 * 3 in magnitude, so 21 of these sums fit int16 before they have
// to be widened, which halves the cost of the exact int32 accumulation.

#include "../kernels.h"

#if defined(__AVX2__)

#include <immintrin.h>

// clang-format off: the second builds on the first.
#include "tiled_conv.h"
#include "depthwise.h"
// clang-format on

namespace mbq {
namespace {

inline constexpr int kHalves = 2;  // a block of 16 outputs is two vectors of 8 int32

struct Codes {
  static constexpr int kGroupsBeforeWidening = 16;
  static_assert(kGroupsBeforeWidening * 2 * 255 * 3 <= 32767);
  static __m256i dot(__m256i sum, __m256i activations, __m256i weights) {
    return _mm256_add_epi16(sum, _mm256_maddubs_epi16(activations, weights));
  }
  static __m256i widen(__m256i acc, __m256i sum) {
    return _mm256_add_epi32(acc, _mm256_madd_epi16(sum, _mm256_set1_epi16(1)));
  }
};

struct Pixels {
  static constexpr int kGroupsBeforeWidening = 1 << 30;  // sums are int32 from the start
  static __m256i dot(__m256i sum, __m256i pixels, __m256i weights) {
    return _mm256_add_epi32(sum, _mm256_madd_epi16(pixels, weights));
  }
  static __m256i widen(__m256i acc, __m256i sum) { return _mm256_add_epi32(acc, sum); }
};

__m256i lanes_below(int count) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}

__m256i to_integers(__m256 value, __m256 low, __m256 high) {
  // max and min return their second operand for values that are not a number: low. The limits are
  // integers, so clamping before rounding gives the same code. vcvtps2dq rounds half to even.
  return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(value, low), high));
}

// The low bytes of 8 int32 within 0..255, in the low half of the result.
__m128i to_bytes(__m256i values) {
  const __m128i low = _mm256_castsi256_si128(values), high = _mm256_extracti128_si256(values, 1);
  const __m128i words = _mm_packus_epi32(low, high);
  return _mm_packus_epi16(words, words);
}

void store_bytes(uint8_t* to, __m128i bytes, int count) {
  if (count >= 8) {
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to), bytes);
    return;
  }
  uint8_t all[16];
  _mm_storeu_si128(reinterpret_cast<__m128i*>(all), bytes);
  for (int i = 0; i < count; ++i) to[i] = all[i];
}

// The finish of 8 outputs of `P` pixels.
template <int P>
[[gnu::always_inline]] inline void finish(const __m256i (&acc)[P], const TileOutput& tile,
                                          int half) {
  const ConvOutput& out = *tile.output;
  const int first = tile.first_output + half * 8;
  const int left = tile.outputs - first;
  if (left <= 0) return;
  const __m256i mask = lanes_below(left);
  const __m256 scale = _mm256_maskload_ps(out.scale + first, mask);
  const __m256 bias = _mm256_maskload_ps(out.bias + first, mask);
  const __m256 low = _mm256_set1_ps(static_cast<float>(out.lowest));
  const __m256 high = _mm256_set1_ps(static_cast<float>(out.highest));
  size_t position = tile.position + half * 8;
  for (int p = 0; p < P; ++p, position += tile.outputs) {
    __m256 value = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(acc[p]), scale), bias);
    if (out.codes != nullptr) {
      store_bytes(out.codes + position, to_bytes(to_integers(value, low, high)), left);
      continue;
    }
    if (out.residual != nullptr) {
      value = _mm256_add_ps(value, _mm256_maskload_ps(out.residual + position, mask));
    }
    if (out.relu) value = _mm256_max_ps(value, _mm256_setzero_ps());
    _mm256_maskstore_ps(out.stream + position, mask, value);
  }
}

template <typename Operand, int P>
void tile(const TileInput& input, const TileOutput& output) {
  __m256i acc[kHalves][P];
  for (int half = 0; half < kHalves; ++half) {
    for (int p = 0; p < P; ++p) acc[half][p] = _mm256_setzero_si256();
  }
  const uint8_t* weights = input.weights;
  for (int row = 0; row < input.rows; ++row) {
    const uint8_t* from = input.pixels + row * input.row_step;
    for (int done = 0; done < input.groups;) {
      const int left = input.groups - done;
      const int groups =
          left < Operand::kGroupsBeforeWidening ? left : Operand::kGroupsBeforeWidening;
      __m256i sum[kHalves][P];
      for (int half = 0; half < kHalves; ++half) {
        for (int p = 0; p < P; ++p) sum[half][p] = _mm256_setzero_si256();
      }
      for (int group = 0; group < groups; ++group, from += 4, weights += kVectorBytes) {
        const __m256i* const w = reinterpret_cast<const __m256i*>(weights);
        const __m256i w0 = _mm256_load_si256(w), w1 = _mm256_load_si256(w + 1);
        for (int p = 0; p < P; ++p) {
          int32_t value;
          memcpy(&value, from + p * input.pixel_step, sizeof value);
          const __m256i activations = _mm256_set1_epi32(value);
          sum[0][p] = Operand::dot(sum[0][p], activations, w0);
          sum[1][p] = Operand::dot(sum[1][p], activations, w1);
        }
      }
      for (int half = 0; half < kHalves; ++half) {
        for (int p = 0; p < P; ++p) acc[half][p] = Operand::widen(acc[half][p], sum[half][p]);
      }
      done += groups;
    }
  }
  for (int half = 0; half < kHalves; ++half) finish<P>(acc[half], output, half);
}

struct Avx2 {
  static constexpr int kMaxPixels[2] = {4, 0};

  template <typename Operand>
  struct Tiles {
    static constexpr Tile table[1][8] = {
        {tile<Operand, 1>, tile<Operand, 2>, tile<Operand, 3>, tile<Operand, 4>}};
  };
  static constexpr auto& kCodeTiles = Tiles<Codes>::table;
  static constexpr auto& kPixelTiles = Tiles<Pixels>::table;

  // 16 bytes of packed codes become 64 int8 weights. Shifting by 6, 12 and 18 brings the four codes
  // of a byte to bits 0, 8, 16 and 24; what else lands around them is masked off.
  static void widen(const uint8_t* packed, uint8_t* weights) {
    for (int half = 0; half < kHalves; ++half) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed + 8 * half));
      const __m256i byte = _mm256_cvtepu8_epi32(bytes);
      const __m256i low = _mm256_or_si256(byte, _mm256_slli_epi32(byte, 6));
      const __m256i high =
          _mm256_or_si256(_mm256_slli_epi32(byte, 12), _mm256_slli_epi32(byte, 18));
      const __m256i codes =
          _mm256_and_si256(_mm256_or_si256(low, high), _mm256_set1_epi32(0x03030303));
      const __m256i doubled = _mm256_add_epi8(codes, codes);
      _mm256_store_si256(reinterpret_cast<__m256i*>(weights) + half,
                         _mm256_sub_epi8(doubled, _mm256_set1_epi8(3)));
    }
  }

  // Depthwise: 16 channels as int16.
  using Words = __m256i;
  static constexpr int kLanes = 16;
  static Words no_words() { return _mm256_setzero_si256(); }
  static Words load_words(const int16_t* from) {
    return _mm256_load_si256(reinterpret_cast<const __m256i*>(from));
  }
  static Words widen_codes(const uint8_t* from) {
    return _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }
  static Words multiply_add(Words sum, Words codes, Words weights) {
    return _mm256_add_epi16(sum, _mm256_mullo_epi16(codes, weights));
  }

  // 16 bytes, one for each channel, become the int16 weights of up to 4 taps, kLanes apart.
  static void widen_taps(const uint8_t* packed, int taps, int16_t* weights) {
    const __m256i codes = widen_codes(packed);
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
    __m256i acc[kHalves][P];
    for (int p = 0; p < P; ++p) {
      acc[0][p] = _mm256_cvtepi16_epi32(_mm256_castsi256_si128(sums[p]));
      acc[1][p] = _mm256_cvtepi16_epi32(_mm256_extracti128_si256(sums[p], 1));
    }
    for (int half = 0; half < kHalves; ++half) finish<P>(acc[half], output, half);
  }

  // Codes of `count` elements of the stream from `position` on.
  static void quantize(const ConvInput& input, size_t position, size_t count, uint8_t* codes) {
    const float* const x = input.stream + position;
    const __m256 low = _mm256_setzero_ps();
    const __m256 high = _mm256_set1_ps(static_cast<float>(input.highest));
    const __m256 scale = _mm256_set1_ps(input.scale), offset = _mm256_set1_ps(input.offset);
    for (size_t i = 0; i < count; i += 8) {
      const int left = count - i < 8 ? static_cast<int>(count - i) : 8;
      const __m256 value = _mm256_maskload_ps(x + i, lanes_below(left));
      const __m256 scaled = _mm256_add_ps(_mm256_mul_ps(value, scale), offset);
      store_bytes(codes + i, to_bytes(to_integers(scaled, low, high)), left);
    }
  }
};

}  // namespace

const KernelSet* avx2_kernels() {
  static constexpr KernelSet kernels{"avx2", conv<Avx2>, depthwise<Avx2>, stem<Avx2>};
  return &kernels;
}

}  // namespace mbq

#else

namespace mbq {
const KernelSet* avx2_kernels() { return nullptr; }
}  // namespace mbq

#endif
