// Layers without weights of 2 bits: quantisation of the stream, pooling, the classifier.

#include "avx512vnni_layers.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#include "finish_avx512.h"

namespace mbq {
namespace {

constexpr int kLanes = 16;
constexpr int kBytes = 64;
constexpr int kParts = kBytes / kLanes;  // vectors of 16 floats for 64 codes

int smaller(int a, int b) { return a < b ? a : b; }

__mmask16 lanes_below(int count) {
  return static_cast<__mmask16>(count >= kLanes ? 0xffff : count <= 0 ? 0 : (1 << count) - 1);
}

// The pixels of a pool's window that lie inside the image: rows y until y_end, columns likewise.
struct Inside {
  int y, y_end, x, x_end;

  Inside(const PoolShape& shape, int oy, int ox) {
    const int top = oy * shape.stride - shape.pad, left = ox * shape.stride - shape.pad;
    y = top < 0 ? 0 : top;
    x = left < 0 ? 0 : left;
    y_end = smaller(top + shape.kernel, shape.height);
    x_end = smaller(left + shape.kernel, shape.width);
  }
};

// The quantisation of one output.
struct Quantizer {
  __m512 scale, offset, low, high;
  __m512i low_bytes;

  explicit Quantizer(const CodeOutput& output)
      : scale(_mm512_set1_ps(output.scale)),
        offset(_mm512_set1_ps(output.offset)),
        low(_mm512_set1_ps(static_cast<float>(output.lowest))),
        high(_mm512_set1_ps(static_cast<float>(output.highest))),
        low_bytes(_mm512_set1_epi8(static_cast<char>(output.lowest))) {}

  __m512 recode(__m512 value) const { return _mm512_add_ps(_mm512_mul_ps(value, scale), offset); }
  __m128i codes(__m512 value) const { return codes_of(recode(value), low, high); }
  __m512i codes(const __m512 (&values)[kParts]) const {
    return codes_of(recode(values[0]), recode(values[1]), recode(values[2]), recode(values[3]),
                    low_bytes, high);
  }
};

struct StreamWalk {
  const StreamCall* call;
  int width;

  // Channels of an output pixel from `channel` on, in Parts vectors of what the mask has.
  template <bool Pool, int Parts>
  [[gnu::always_inline]] void read(const Inside& inside, const float* pixel, int channel,
                                   __mmask16 mask, __m512 (&values)[Parts]) const {
    const StreamCall& c = *call;
    const size_t row = static_cast<size_t>(c.width) * c.channels;
    const float* from = pixel + channel;
    if constexpr (Pool) {
      from = c.input + inside.y * row + static_cast<size_t>(inside.x) * c.channels + channel;
    }
#pragma GCC unroll 4
    for (int part = 0; part < Parts; ++part) {
      values[part] = _mm512_maskz_loadu_ps(mask, from + part * kLanes);
    }
    if constexpr (!Pool) return;
    for (int y = inside.y; y < inside.y_end; ++y, from += row) {
      const float* at = from;
      for (int x = inside.x; x < inside.x_end; ++x, at += c.channels) {
#pragma GCC unroll 4
        for (int part = 0; part < Parts; ++part) {
          const __m512 value = _mm512_maskz_loadu_ps(mask, at + part * kLanes);
          values[part] = _mm512_max_ps(value, values[part]);  // the first of equals
        }
      }
    }
  }

  template <bool Pool>
  static void rows(void* context, int, int begin, int end) {
    const StreamWalk& walk = *static_cast<const StreamWalk*>(context);
    const StreamCall& call = *walk.call;
    const int kept = call.kept, present = smaller(call.kept, call.channels);
    const Quantizer quantizers[kMaxCodeOutputs] = {Quantizer(call.codes[0]),
                                                   Quantizer(call.codes[1])};
    for (int y = begin; y < end; ++y) {
      for (int x = 0; x < walk.width; ++x) {
        const size_t position = static_cast<size_t>(y) * walk.width + x;
        const float* const pixel = Pool ? nullptr : call.input + position * call.channels;
        const Inside inside = Pool ? Inside(call.pool, y, x) : Inside(PoolShape{}, 0, 0);
        float* const stream = call.stream == nullptr ? nullptr : call.stream + position * kept;
        int c = 0;
        for (; c + kBytes <= present; c += kBytes) {
          __m512 values[kParts];
          walk.read<Pool>(inside, pixel, c, 0xffff, values);
          if (stream != nullptr) {
            for (int part = 0; part < kParts; ++part) {
              _mm512_storeu_ps(stream + c + part * kLanes, values[part]);
            }
          }
          for (int i = 0; i < call.code_outputs; ++i) {
            const CodeImage& image = call.codes[i].image;
            _mm512_storeu_si512(image.origin + y * image.row + x * image.pixel + c,
                                quantizers[i].codes(values));
          }
        }
        for (; c < kept; c += kLanes) {
          const __mmask16 mask = lanes_below(kept - c);
          __m512 values[1];
          walk.read<Pool>(inside, pixel, c, lanes_below(present - c), values);
          if (stream != nullptr) _mm512_mask_storeu_ps(stream + c, mask, values[0]);
          for (int i = 0; i < call.code_outputs; ++i) {
            const CodeImage& image = call.codes[i].image;
            _mm_mask_storeu_epi8(image.origin + y * image.row + x * image.pixel + c, mask,
                                 quantizers[i].codes(values[0]));
          }
        }
      }
    }
  }
};

struct CodePool {
  PoolShape shape;
  CodeImage input, output;

  static void rows(void* context, int, int begin, int end) {
    const CodePool& walk = *static_cast<const CodePool*>(context);
    const PoolShape& shape = walk.shape;
    const CodeImage &input = walk.input, &output = walk.output;
    for (int y = begin; y < end; ++y) {
      for (int x = 0; x < shape.out_width(); ++x) {
        const Inside inside(shape, y, x);
        const uint8_t* const corner = input.origin + inside.y * input.row + inside.x * input.pixel;
        uint8_t* const to = output.origin + y * output.row + x * output.pixel;
        for (int c = 0; c < shape.channels; c += kBytes) {
          const uint8_t* from = corner + c;
          __m512i most = _mm512_setzero_si512();
          for (int row = inside.y; row < inside.y_end; ++row, from += input.row) {
            const uint8_t* at = from;
            for (int column = inside.x; column < inside.x_end; ++column, at += input.pixel) {
              most = _mm512_max_epu8(most, _mm512_loadu_si512(at));
            }
          }
          const int left = shape.channels - c;
          if (left >= kBytes) {
            _mm512_storeu_si512(to + c, most);
          } else {
            _mm512_mask_storeu_epi8(to + c, (__mmask64{1} << left) - 1, most);
          }
        }
      }
    }
  }
};

// The mean over pixels of each stream, added up: 16 channels in a vector, pixels in order.
void pool_streams(const HeadCall& call) {
  const __m512 by_pixels = _mm512_set1_ps(1.0f / static_cast<float>(call.pixels));
  const __m512 by_streams = _mm512_set1_ps(1.0f / static_cast<float>(call.count));
  for (int c = 0; c < call.channels; c += kLanes * kParts) {
    __mmask16 masks[kParts];
    __m512 pooled[kParts];
    for (int part = 0; part < kParts; ++part) {
      masks[part] = lanes_below(call.channels - c - part * kLanes);
      pooled[part] = _mm512_setzero_ps();
    }
    for (int s = 0; s < call.count; ++s) {
      const float* from = call.streams[s] + c;
      __m512 total[kParts];
      for (__m512& sum : total) sum = _mm512_setzero_ps();
      for (int p = 0; p < call.pixels; ++p, from += call.channels) {
        for (int part = 0; part < kParts; ++part) {
          const __m512 value = _mm512_maskz_loadu_ps(masks[part], from + part * kLanes);
          total[part] = _mm512_add_ps(total[part], value);
        }
      }
      for (int part = 0; part < kParts; ++part) {
        pooled[part] = _mm512_add_ps(pooled[part], _mm512_mul_ps(total[part], by_pixels));
      }
    }
    for (int part = 0; part < kParts; ++part) {
      if (call.mean) pooled[part] = _mm512_mul_ps(pooled[part], by_streams);
      _mm512_mask_storeu_ps(call.pooled + c + part * kLanes, masks[part], pooled[part]);
    }
  }
}

// Turns 16 rows of 16 into columns.
[[gnu::always_inline]] inline void transpose(__m512 (&rows)[kLanes]) {
  __m512 pairs[kLanes], quads[kLanes], halves[4];
#pragma GCC unroll 8
  for (int i = 0; i < kLanes; i += 2) {
    pairs[i] = _mm512_unpacklo_ps(rows[i], rows[i + 1]);
    pairs[i + 1] = _mm512_unpackhi_ps(rows[i], rows[i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < kLanes; i += 4) {
    for (int k = 0; k < 2; ++k) {
      const __m512d low = _mm512_castps_pd(pairs[i + k]);
      const __m512d high = _mm512_castps_pd(pairs[i + 2 + k]);
      quads[i + 2 * k] = _mm512_castpd_ps(_mm512_unpacklo_pd(low, high));
      quads[i + 2 * k + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(low, high));
    }
  }
  // Lane l of quads[4 g + k] is column 4 l + k of rows 4 g .. 4 g + 3.
#pragma GCC unroll 4
  for (int k = 0; k < 4; ++k) {
    for (int half = 0; half < 2; ++half) {
      const __m512 low = quads[8 * half + k], high = quads[8 * half + 4 + k];
      halves[half] = _mm512_shuffle_f32x4(low, high, 0x88);      // lanes 0 and 2
      halves[2 + half] = _mm512_shuffle_f32x4(low, high, 0xdd);  // lanes 1 and 3
    }
    rows[k] = _mm512_shuffle_f32x4(halves[0], halves[1], 0x88);
    rows[4 + k] = _mm512_shuffle_f32x4(halves[2], halves[3], 0x88);
    rows[8 + k] = _mm512_shuffle_f32x4(halves[0], halves[1], 0xdd);
    rows[12 + k] = _mm512_shuffle_f32x4(halves[2], halves[3], 0xdd);
  }
}

// Sixteen classes at a time, each with its sixteen partial sums in a vector; turned into columns,
// one addition after the other serves all classes in the order that is the definition.
void classify(void* context, int, int begin, int end) {
  const HeadCall& call = *static_cast<const HeadCall*>(context);
  const size_t channels = call.channels;
  for (int block = begin; block < end; ++block) {
    const int first = block * kLanes, last = call.classes - 1;
    const float* rows[kLanes];
    __m512 partial[kLanes];
#pragma GCC unroll 16
    for (int n = 0; n < kLanes; ++n) {
      rows[n] = call.weight + smaller(first + n, last) * channels;
      partial[n] = _mm512_setzero_ps();
    }
    for (size_t c = 0; c < channels; c += kLanes) {
      const __mmask16 mask = lanes_below(static_cast<int>(channels - c));
      const __m512 pooled = _mm512_maskz_loadu_ps(mask, call.pooled + c);
#pragma GCC unroll 16
      for (int n = 0; n < kLanes; ++n) {
        // Zero where there is no channel: sums are never -0, so adding it changes nothing.
        const __m512 weight = _mm512_maskz_loadu_ps(mask, rows[n] + c);
        partial[n] = _mm512_add_ps(partial[n], _mm512_mul_ps(pooled, weight));
      }
    }
    transpose(partial);
    __m512 sum = _mm512_setzero_ps();
#pragma GCC unroll 16
    for (int lane = 0; lane < kLanes; ++lane) sum = _mm512_add_ps(sum, partial[lane]);
    const __mmask16 mask = lanes_below(call.classes - first);
    const __m512 bias = _mm512_maskz_loadu_ps(mask, call.bias + first);
    _mm512_mask_storeu_ps(call.logits + first, mask, _mm512_add_ps(sum, bias));
  }
}

}  // namespace

namespace avx512vnni {

void stream(const StreamCall& call, const Parallel& parallel) {
  const bool pool = call.pool.kernel > 0;
  StreamWalk walk{&call, pool ? call.pool.out_width() : call.width};
  parallel.run(parallel.self, pool ? call.pool.out_height() : call.height,
               pool ? StreamWalk::rows<true> : StreamWalk::rows<false>, &walk);
}

void stream_row(const StreamCall& call) {
  StreamWalk walk{&call, call.width};
  StreamWalk::rows<false>(&walk, 0, 0, 1);
}

void pool_codes(const PoolShape& shape, const CodeImage& input, const CodeImage& output,
                const Parallel& parallel) {
  CodePool walk{shape, input, output};
  parallel.run(parallel.self, shape.out_height(), CodePool::rows, &walk);
}

void head(const HeadCall& call, const Parallel& parallel) {
  pool_streams(call);
  HeadCall copy = call;
  parallel.run(parallel.self, (call.classes + kLanes - 1) / kLanes, classify, &copy);
}

}  // namespace avx512vnni
}  // namespace mbq

#endif
