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

// Lane i of part v becomes lane v of part i: from the order of accumulators to that of channels, or
// back.
[[gnu::always_inline]] inline void transpose_lanes(__m512i (&parts)[kParts]) {
  const __m512i a = _mm512_shuffle_i32x4(parts[0], parts[1], 0x44);
  const __m512i b = _mm512_shuffle_i32x4(parts[2], parts[3], 0x44);
  const __m512i c = _mm512_shuffle_i32x4(parts[0], parts[1], 0xee);
  const __m512i d = _mm512_shuffle_i32x4(parts[2], parts[3], 0xee);
  parts[0] = _mm512_shuffle_i32x4(a, b, 0x88);
  parts[1] = _mm512_shuffle_i32x4(a, b, 0xdd);
  parts[2] = _mm512_shuffle_i32x4(c, d, 0x88);
  parts[3] = _mm512_shuffle_i32x4(c, d, 0xdd);
}

// What becomes of the accumulators of 64 bytes of one block.
struct BlockFinish {
  const LayerOutput* output;
  int first, channels;  // channels of this block
  bool narrow;
  // Codes straight from accumulators whose result stays within int32: no clamping before it.
  bool quick;
  __m512i scale[kParts], bias[kParts];  // floats in the order of accumulators
  __m512i lowest, highest;
  __mmask64 mask;
  const Finish* any;  // for 16 channels each, unless quick

  BlockFinish(const LayerOutput& out, const ConvShape& shape, int block)
      : output(&out), first(block * kChannels), narrow(is_narrow(shape, block)), any(nullptr) {
    const int left = shape.outputs - first;
    channels = left < kChannels ? left : kChannels;
    mask = channels == kChannels ? ~__mmask64{0} : (__mmask64{1} << channels) - 1;
    quick = out.direct;
    if (!quick) return;
    const __m512 most = _mm512_set1_ps(255.0f * 3.0f * shape.kernel_height * shape.kernel_width);
    for (int part = 0; part < kParts; ++part) {
      const int channel = channel_of_part(part);
      const __mmask16 present = static_cast<__mmask16>(mask >> channel);
      const __m512 s = _mm512_maskz_loadu_ps(present, out.scale + first + channel);
      const __m512 b = _mm512_maskz_loadu_ps(present, out.bias + first + channel);
      scale[part] = _mm512_castps_si512(s);
      bias[part] = _mm512_castps_si512(b);
      const __m512 bound = _mm512_add_ps(_mm512_mul_ps(_mm512_abs_ps(s), most), _mm512_abs_ps(b));
      // What is not a number converts to the least int32 and ends as the lowest code.
      if (_mm512_cmp_ps_mask(bound, _mm512_set1_ps(0x1p30f), _CMP_GE_OQ) != 0) quick = false;
    }
    transpose_lanes(scale);
    transpose_lanes(bias);
    lowest = _mm512_set1_epi8(static_cast<char>(out.codes[0].lowest));
    highest = _mm512_set1_epi8(static_cast<char>(out.codes[0].highest));
  }

  // The first channel of the block that a part has, in the order of channels.
  int channel_of_part(int part) const { return (narrow ? part % 2 : part) * kOutputBlock; }

  // Of 16 channels from 16 * i on, or where there are none, of others that nobody asks for.
  Finish part(const ConvShape& shape, int i) const {
    return Finish(*output, shape, first + (i * kOutputBlock < channels ? i * kOutputBlock : 0));
  }

  // Any other output, 16 channels after 16 channels.
  [[gnu::noinline]] void slowly(const __m512i* acc, int y, int x, int width) const {
    __m512i parts[kParts] = {acc[0], acc[1], acc[2], acc[3]};
    transpose_lanes(parts);
    for (int part = 0; part < kParts; ++part) {
      const int channel = channel_of_part(part);
      const int column = narrow ? x + part / 2 * kOutputs : x;
      if (channel >= channels || column >= width) continue;
      if (output->direct) {
        any[channel / kOutputBlock].operator()<true>(parts[part], y, column);
      } else {
        any[channel / kOutputBlock].operator()<false>(parts[part], y, column);
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
      const __m512 s = _mm512_castsi512_ps(scale[v]), b = _mm512_castsi512_ps(bias[v]);
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
