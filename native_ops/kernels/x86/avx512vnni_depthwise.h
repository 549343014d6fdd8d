// The order of a depthwise convolution's accumulators, and what becomes of them.
//
// Anonymous for the reason that finish_avx512.h gives. Include after <immintrin.h>.

#pragma once

#include "finish_avx512.h"

namespace mbq {
namespace {

constexpr int kVectorBytes = 64;
constexpr int kChannels = 64;  // of a block
constexpr int kOutputs = 2;    // neighbours in a row that a tile makes in each half of a vector
constexpr int kParts = 4;      // vectors of 16 int32 for the 64 bytes of a vector

int blocks_of(const ConvShape& shape) { return (shape.outputs + kChannels - 1) / kChannels; }

bool is_narrow(const ConvShape& shape, int block) {
  return shape.outputs - block * kChannels <= kChannels / 2;
}

// Byte n of a block's vector, or its accumulator, is in this place of the parts: byte 16 i + 4 v +
// c is element 4 i + c of part v.
constexpr int place_of(int n) { return n % 16 / 4 * 16 + n / 16 * 4 + n % 4; }

// The channel of byte n of a block's vector, or -1.
int channel_of(const ConvShape& shape, int block, int n) {
  const int channel = block * kChannels + (is_narrow(shape, block) ? n % (kChannels / 2) : n);
  return channel < shape.outputs ? channel : -1;
}

// What becomes of the accumulators of 64 bytes of one block.
struct BlockFinish {
  const LayerOutput* output;
  int first, channels;  // channels of this block
  bool narrow;
  // Codes straight from accumulators whose result stays within int32: no clamping before it.
  bool quick;
  __m512 scale[kParts], bias[kParts];  // in the order of the parts
  __m512i lowest, highest;
  __mmask64 mask;
  Finish exact[kParts];

  static int first_of(const ConvShape& shape, int block, bool narrow, int part) {
    const int first = block * kChannels + (narrow ? part % 2 : part) * kOutputBlock;
    return first < shape.outputs ? first : block * kChannels;
  }

  BlockFinish(const LayerOutput& out, const ConvShape& shape, int block)
      : output(&out),
        first(block * kChannels),
        narrow(is_narrow(shape, block)),
        exact{Finish(out, shape, first_of(shape, block, narrow, 0)),
              Finish(out, shape, first_of(shape, block, narrow, 1)),
              Finish(out, shape, first_of(shape, block, narrow, 2)),
              Finish(out, shape, first_of(shape, block, narrow, 3))} {
    const int left = shape.outputs - first;
    channels = left < kChannels ? left : kChannels;
    mask = channels == kChannels ? ~__mmask64{0} : (__mmask64{1} << channels) - 1;
    quick = out.direct;
    if (!quick) return;
    alignas(64) float scales[kChannels], biases[kChannels];
    const float most = 255.0f * 3.0f * shape.kernel_height * shape.kernel_width;
    for (int n = 0; n < kChannels; ++n) {
      const int channel = channel_of(shape, block, n);
      const float s = channel < 0 ? 0.0f : out.scale[channel];
      const float b = channel < 0 ? 0.0f : out.bias[channel];
      scales[place_of(n)] = s;
      biases[place_of(n)] = b;
      // What is not a number converts to the least int32 and ends as the lowest code.
      if ((s < 0 ? -s : s) * most + (b < 0 ? -b : b) >= 0x1p30f) quick = false;
    }
    for (int part = 0; part < kParts; ++part) {
      scale[part] = _mm512_load_ps(scales + part * 16);
      bias[part] = _mm512_load_ps(biases + part * 16);
    }
    lowest = _mm512_set1_epi8(static_cast<char>(out.codes[0].lowest));
    highest = _mm512_set1_epi8(static_cast<char>(out.codes[0].highest));
  }

  // Any other output: lanes of four vectors transposed, 16 channels after 16 channels.
  [[gnu::noinline]] void slowly(const __m512i* acc, int y, int x, int width) const {
    const __m512i a = _mm512_shuffle_i32x4(acc[0], acc[1], 0x44);
    const __m512i b = _mm512_shuffle_i32x4(acc[2], acc[3], 0x44);
    const __m512i c = _mm512_shuffle_i32x4(acc[0], acc[1], 0xee);
    const __m512i d = _mm512_shuffle_i32x4(acc[2], acc[3], 0xee);
    const __m512i rows[kParts] = {
        _mm512_shuffle_i32x4(a, b, 0x88), _mm512_shuffle_i32x4(a, b, 0xdd),
        _mm512_shuffle_i32x4(c, d, 0x88), _mm512_shuffle_i32x4(c, d, 0xdd)};
    for (int part = 0; part < kParts; ++part) {
      const int channel = (narrow ? part % 2 : part) * kOutputBlock;
      const int column = narrow ? x + part / 2 * kOutputs : x;
      if (channel >= channels || column >= width) continue;
      if (output->direct) {
        exact[part].operator()<true>(rows[part], y, column);
      } else {
        exact[part].operator()<false>(rows[part], y, column);
      }
    }
  }

  // Rows x kOutputs outputs from (y, x) on.
  template <int Rows, bool Narrow>
  [[gnu::always_inline]] void operator()(const __m512i (&acc)[Rows][kOutputs][kParts], int y, int x,
                                         int width) const {
    if (!quick) {
      __m512i copy[Rows * kOutputs][kParts];  // so that the original stays in registers
#pragma GCC unroll 16
      for (int i = 0; i < Rows * kOutputs * kParts; ++i) {
        copy[i / kParts][i % kParts] =
            acc[i / kParts / kOutputs][i / kParts % kOutputs][i % kParts];
      }
      for (int i = 0; i < Rows * kOutputs; ++i) {
        const int row = i / kOutputs, column = x + i % kOutputs;
        if (column < width) slowly(copy[i], y + row, column, width);
      }
      return;
    }
    __m512i rounded[Rows][kOutputs][kParts];
#pragma GCC unroll 4
    for (int v = 0; v < kParts; ++v) {
      const __m512 s = scale[v], b = bias[v];
#pragma GCC unroll 4
      for (int i = 0; i < Rows * kOutputs; ++i) {
        const __m512 value = _mm512_cvtepi32_ps(acc[i / kOutputs][i % kOutputs][v]);
        rounded[i / kOutputs][i % kOutputs][v] =
            _mm512_cvtps_epi32(_mm512_add_ps(_mm512_mul_ps(value, s), b));
      }
    }
    const CodeImage& image = output->codes[0].image;
    uint8_t* const to = image.origin + y * image.row + x * image.pixel + first;
#pragma GCC unroll 4
    for (int i = 0; i < Rows * kOutputs; ++i) {
      const __m512i(&r)[kParts] = rounded[i / kOutputs][i % kOutputs];
      // Packing saturates, which keeps the order of values: limits may follow as bytes.
      const __m512i packed =
          _mm512_packus_epi16(_mm512_packs_epi32(r[0], r[1]), _mm512_packs_epi32(r[2], r[3]));
      const __m512i bytes = _mm512_min_epu8(_mm512_max_epu8(packed, lowest), highest);
      if (x + i % kOutputs >= width) continue;
      uint8_t* const at = to + i / kOutputs * image.row + i % kOutputs * image.pixel;
      if constexpr (Narrow) {
        store(at, _mm512_castsi512_si256(bytes));
        if (x + i % kOutputs + kOutputs < width) {
          store(at + kOutputs * image.pixel, _mm512_extracti64x4_epi64(bytes, 1));
        }
      } else {
        store(at, bytes);
      }
    }
  }

  // Masked stores are slow, and seldom needed.
  [[gnu::always_inline]] void store(uint8_t* to, __m512i bytes) const {
    if (channels == kChannels) {
      _mm512_storeu_si512(to, bytes);
    } else {
      _mm512_mask_storeu_epi8(to, mask, bytes);
    }
  }
  [[gnu::always_inline]] void store(uint8_t* to, __m256i bytes) const {
    if (channels == kChannels / 2) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes);
    } else {
      _mm256_mask_storeu_epi8(to, static_cast<__mmask32>(mask), bytes);
    }
  }
};

}  // namespace
}  // namespace mbq
