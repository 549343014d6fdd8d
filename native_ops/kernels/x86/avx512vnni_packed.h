// What becomes of the accumulators of several pixels, whose codes are packed together: 64 results
// of four vectors at a time, which are as many pixels as these are of `Blocks` blocks of outputs.
//
// Anonymous for the reason that finish_avx512.h gives. Include after <immintrin.h>.

#pragma once

#include "finish_avx512.h"

namespace mbq {
namespace {

[[gnu::always_inline]] inline void store_half(uint8_t* to, __m512i codes, int half) {
  const __m256i bytes =
      half == 0 ? _mm512_castsi512_si256(codes) : _mm512_extracti64x4_epi64(codes, 1);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), bytes);
}
[[gnu::always_inline]] inline void store_quarter(uint8_t* to, __m512i codes, int quarter) {
  const __m128i bytes = quarter == 0   ? _mm512_castsi512_si128(codes)
                        : quarter == 1 ? _mm512_extracti32x4_epi32(codes, 1)
                        : quarter == 2 ? _mm512_extracti32x4_epi32(codes, 2)
                                       : _mm512_extracti32x4_epi32(codes, 3);
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), bytes);
}

// One of the pixels' shares of 64 codes.
template <int Blocks>
[[gnu::always_inline]] inline void store_share(uint8_t* to, __m512i codes, int pixel) {
  if constexpr (Blocks == 2) {
    store_half(to, codes, pixel);
  } else {
    store_quarter(to, codes, pixel);
  }
}

// Codes straight from accumulators that are still in registers.
template <int Blocks>
struct PackedFinish {
  static constexpr bool kNeedsPlaces = true;
  static constexpr int kPixels = 4 / Blocks, kOutputs = Blocks * kOutputBlock;

  // Where all outputs are there.
  static bool suffices(const LayerOutput& output, const ConvShape& shape, int first) {
    return output.direct && shape.outputs - first >= kOutputs;
  }

  __m512 scale[Blocks], bias[Blocks];
  __m512i low_bytes;
  __m512 high;

  PackedFinish(const LayerOutput& output, int first)
      : low_bytes(_mm512_set1_epi8(static_cast<char>(output.codes[0].lowest))),
        high(_mm512_set1_ps(static_cast<float>(output.codes[0].highest))) {
    for (int b = 0; b < Blocks; ++b) {
      scale[b] = _mm512_loadu_ps(output.scale + first + b * kOutputBlock);
      bias[b] = _mm512_loadu_ps(output.bias + first + b * kOutputBlock);
    }
  }

  [[gnu::always_inline]] static __m512 affine(__m512i acc, __m512 scale, __m512 bias) {
    return _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale), bias);
  }

  // The codes of pixel p go to to[p].
  template <int Pixels>
  [[gnu::always_inline]] void operator()(const __m512i (&acc)[Pixels][Blocks],
                                         uint8_t* const* to) const {
    const __m512 scale0 = scale[0], scale1 = scale[Blocks - 1];
    const __m512 bias0 = bias[0], bias1 = bias[Blocks - 1];
    const __m512i lowest = low_bytes;
    const __m512 highest = high;
    constexpr int kLast = Pixels - 1;  // of a group that is not whole, again and again
#pragma GCC unroll 7
    for (int p = 0; p < Pixels; p += kPixels) {
      const int p1 = p + 1 / Blocks, p2 = p + 2 / Blocks, p3 = p + 3 / Blocks;
      const __m512i codes = codes_of(
          affine(acc[p][0], scale0, bias0),
          affine(acc[p1 < kLast ? p1 : kLast][1 % Blocks], scale1, bias1),
          affine(acc[p2 < kLast ? p2 : kLast][0], scale0, bias0),
          affine(acc[p3 < kLast ? p3 : kLast][1 % Blocks], scale1, bias1), lowest, highest);
      if (p3 <= kLast && to[p3] - to[p] == (kPixels - 1) * kOutputs) {
        _mm512_storeu_si512(to[p], codes);
        continue;
      }
#pragma GCC unroll 4
      for (int i = 0; i < kPixels; ++i) {
        if (p + i <= kLast) store_share<Blocks>(to[p + i], codes, i);
      }
    }
  }
};

// Any output but codes straight from accumulators, where all outputs are there.
template <int Blocks>
struct GroupFinish {
  static constexpr int kPixels = 4 / Blocks;

  static bool suffices(const LayerOutput& output, const ConvShape& shape, int first) {
    return !output.direct && shape.outputs - first >= Blocks * kOutputBlock;
  }

  const LayerOutput& output;
  int first, outputs, width, first_row;
  __m512 scale[Blocks], bias[Blocks];
  // Of the code outputs; made once, since the compiler has to assume that stores change `output`.
  __m512 code_scale[kMaxCodeOutputs], code_offset[kMaxCodeOutputs], high[kMaxCodeOutputs];
  __m512i low_bytes[kMaxCodeOutputs];

  GroupFinish(const LayerOutput& out, const ConvShape& shape, int first_output, int row)
      : output(out),
        first(first_output),
        outputs(shape.outputs),
        width(shape.out_width()),
        first_row(row) {
    for (int b = 0; b < Blocks; ++b) {
      scale[b] = _mm512_loadu_ps(output.scale + first + b * kOutputBlock);
      bias[b] = _mm512_loadu_ps(output.bias + first + b * kOutputBlock);
    }
    for (int i = 0; i < output.code_outputs; ++i) {
      code_scale[i] = _mm512_set1_ps(output.codes[i].scale);
      code_offset[i] = _mm512_set1_ps(output.codes[i].offset);
      high[i] = _mm512_set1_ps(static_cast<float>(output.codes[i].highest));
      low_bytes[i] = _mm512_set1_epi8(static_cast<char>(output.codes[i].lowest));
    }
  }

  // The pixel and output of vector v of a group that begins at a position of the stream.
  [[gnu::always_inline]] size_t at(size_t position, int v) const {
    return position + static_cast<size_t>(v / Blocks) * outputs + v % Blocks * kOutputBlock;
  }

  [[gnu::always_inline]] __m512 recode(__m512 value, int i) const {
    return _mm512_add_ps(_mm512_mul_ps(value, code_scale[i]), code_offset[i]);
  }

  // Up to kPixels pixels, all of them unless it is the last group.
  template <bool All>
  [[gnu::always_inline]] void group(const int32_t* acc, int count, size_t position, int y,
                                    int x) const {
    __m512 value[4];
#pragma GCC unroll 4
    for (int v = 0; v < 4; ++v) {
      const __m512 sum = _mm512_cvtepi32_ps(_mm512_load_si512(acc + v * kOutputBlock));
      value[v] = _mm512_add_ps(_mm512_mul_ps(sum, scale[v % Blocks]), bias[v % Blocks]);
    }
    if (output.residual != nullptr) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        if (!All && v / Blocks >= count) break;
        value[v] = _mm512_add_ps(value[v], _mm512_loadu_ps(output.residual + at(position, v)));
      }
    }
    if (output.relu) {
      // Zero where a value is not a number, as in the definition.
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) value[v] = _mm512_max_ps(value[v], _mm512_setzero_ps());
    }
    if (output.stream != nullptr) {
#pragma GCC unroll 4
      for (int v = 0; v < 4; ++v) {
        if (!All && v / Blocks >= count) break;
        _mm512_storeu_ps(output.stream + at(position, v), value[v]);
      }
    }
    for (int i = 0; i < output.code_outputs; ++i) {
      const CodeImage& image = output.codes[i].image;
      const __m512i codes = codes_of(recode(value[0], i), recode(value[1], i), recode(value[2], i),
                                     recode(value[3], i), low_bytes[i], high[i]);
      uint8_t* place = image.origin + y * image.row + x * image.pixel + first;
      if (All && image.pixel == Blocks * kOutputBlock && x + kPixels <= width) {
        _mm512_storeu_si512(place, codes);
        continue;
      }
      int column = x;
#pragma GCC unroll 4
      for (int p = 0; p < kPixels; ++p) {
        if (!All && p >= count) break;
        store_share<Blocks>(place, codes, p);
        place += image.pixel;
        if (++column == width) {
          column = 0;
          place += image.row - width * image.pixel;
        }
      }
    }
  }

  [[gnu::always_inline]] void operator()(const int32_t* acc, int count, int y, int x) const {
    y += first_row;
    size_t position = (static_cast<size_t>(y) * width + x) * outputs + first;
    for (; count >= kPixels; count -= kPixels, acc += 4 * kOutputBlock) {
      group<true>(acc, kPixels, position, y, x);
      position += static_cast<size_t>(kPixels) * outputs;
      for (x += kPixels; x >= width; x -= width) ++y;
    }
    if (count > 0) group<false>(acc, count, position, y, x);
  }
};

// Any output, vector by vector.
template <int Blocks>
struct AnyFinish {
  Finish blocks[2];  // the same twice where there is one
  int width, first_row;

  AnyFinish(const LayerOutput& output, const ConvShape& shape, int first, int row)
      : blocks{Finish(output, shape, first),
               Finish(output, shape, first + (Blocks - 1) * kOutputBlock)},
        width(shape.out_width()),
        first_row(row) {}

  void operator()(const int32_t* acc, int count, int y, int x) const {
    y += first_row;
    for (int p = 0; p < count; ++p) {
      for (int b = 0; b < Blocks; ++b, acc += kOutputBlock) {
        const __m512i sums = _mm512_load_si512(acc);
        if (blocks[b].output->direct) {
          blocks[b].template operator()<true>(sums, y, x);
        } else {
          blocks[b].template operator()<false>(sums, y, x);
        }
      }
      if (++x == width) {
        x = 0;
        ++y;
      }
    }
  }
};

}  // namespace
}  // namespace mbq
