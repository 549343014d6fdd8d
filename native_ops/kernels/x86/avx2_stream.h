// Codes of a stream, pools and the head for AVX2.

#pragma once

#include "../pool_window.h"
#include "avx2_finish.h"

namespace mbq {
namespace {

struct StreamWalk {
  const StreamCall* call;
  int width;  // of the output
};

// Channels c .. c + 15 of the largest pixel of a window; those that do not exist are 0.
[[gnu::always_inline]] inline Values largest(const StreamCall& call, const Inside& rows,
                                             const Inside& columns, int c) {
  const int count = call.channels - c;
  if (count <= 0) return {_mm256_setzero_ps(), _mm256_setzero_ps()};
  const size_t pixel = call.channels;
  const float* row = call.input + c + (static_cast<size_t>(rows.begin) * call.width) * pixel;
  Values most = load_values(row + columns.begin * pixel, count);
  for (int y = rows.begin; y < rows.end; ++y, row += call.width * pixel) {
    for (int x = columns.begin; x < columns.end; ++x) {
      const Values value = load_values(row + x * pixel, count);
      // The second operand where either is not a number: as in value > most ? value : most.
      most = {_mm256_max_ps(value.low, most.low), _mm256_max_ps(value.high, most.high)};
    }
  }
  return most;
}

void stream_rows(void* context, int, int begin, int end) {
  const StreamWalk& walk = *static_cast<const StreamWalk*>(context);
  const StreamCall& call = *walk.call;
  const PoolShape& pool = call.pool;
  const bool pooled = pool.kernel > 0;
  Recode codes[kMaxCodeOutputs];
  for (int i = 0; i < call.code_outputs; ++i) codes[i].set(call.codes[i]);
  for (int y = begin; y < end; ++y) {
    const Inside rows = pooled ? Inside(y, pool.kernel, pool.stride, pool.pad, call.height)
                               : Inside(y, 1, 1, 0, call.height);
    for (int x = 0; x < walk.width; ++x) {
      const Inside columns = pooled ? Inside(x, pool.kernel, pool.stride, pool.pad, call.width)
                                    : Inside(x, 1, 1, 0, call.width);
      for (int c = 0; c < call.kept; c += kOutputBlock) {
        const int kept = call.kept - c;
        const Values value = largest(call, rows, columns, c);
        if (call.stream != nullptr) {
          const size_t position = (static_cast<size_t>(y) * walk.width + x) * call.kept + c;
          store_values(call.stream + position, value, kept);
        }
        for (int i = 0; i < call.code_outputs; ++i) {
          codes[i].store(codes[i].scaled(value), y, x, c, kept);
        }
      }
    }
  }
}

void stream(const StreamCall& call, const Parallel& parallel) {
  const bool pooled = call.pool.kernel > 0;
  StreamWalk walk{&call, pooled ? call.pool.out_width() : call.width};
  parallel.run(parallel.self, pooled ? call.pool.out_height() : call.height, stream_rows, &walk);
}

struct PoolWalk {
  PoolShape shape;
  CodeImage input, output;
};

void pool_rows(void* context, int, int begin, int end) {
  const PoolWalk& walk = *static_cast<const PoolWalk*>(context);
  const PoolShape& shape = walk.shape;
  for (int y = begin; y < end; ++y) {
    const Inside rows(y, shape.kernel, shape.stride, shape.pad, shape.height);
    for (int x = 0; x < shape.out_width(); ++x) {
      const Inside columns(x, shape.kernel, shape.stride, shape.pad, shape.width);
      uint8_t* const to = walk.output.origin + y * walk.output.row + x * walk.output.pixel;
      for (int c = 0; c < shape.channels; c += 16) {
        // Codes are not negative. What lies behind the last channel is read and not stored.
        __m128i most = _mm_setzero_si128();
        for (int row = rows.begin; row < rows.end; ++row) {
          const uint8_t* from = walk.input.origin + row * walk.input.row + c;
          for (int column = columns.begin; column < columns.end; ++column) {
            const uint8_t* const at = from + column * walk.input.pixel;
            most = _mm_max_epu8(most, _mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
          }
        }
        store_codes(to + c, most, shape.channels - c);
      }
    }
  }
}

void pool_codes(const PoolShape& shape, const CodeImage& input, const CodeImage& output,
                const Parallel& parallel) {
  PoolWalk walk{shape, input, output};
  parallel.run(parallel.self, shape.out_height(), pool_rows, &walk);
}

// Sums over pixels go channel by channel, those of the classifier in 16 partial sums that are added
// from first to last: the order of the definition. Missing channels add 0 to sums that begin with 0
// and so are never -0.
void head(const HeadCall& call, const Parallel&) {
  const __m256 by_pixels = _mm256_set1_ps(1.0f / static_cast<float>(call.pixels));
  const __m256 by_streams = _mm256_set1_ps(1.0f / static_cast<float>(call.count));
  for (int c = 0; c < call.channels; c += kOutputBlock) {
    const int count = call.channels - c;
    Values sum{_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int s = 0; s < call.count; ++s) {
      Values total{_mm256_setzero_ps(), _mm256_setzero_ps()};
      const float* from = call.streams[s] + c;
      for (int p = 0; p < call.pixels; ++p, from += call.channels) {
        const Values value = load_values(from, count);
        total = {_mm256_add_ps(total.low, value.low), _mm256_add_ps(total.high, value.high)};
      }
      sum = {_mm256_add_ps(sum.low, _mm256_mul_ps(total.low, by_pixels)),
             _mm256_add_ps(sum.high, _mm256_mul_ps(total.high, by_pixels))};
    }
    if (call.mean) {
      sum = {_mm256_mul_ps(sum.low, by_streams), _mm256_mul_ps(sum.high, by_streams)};
    }
    store_values(call.pooled + c, sum, count);
  }
  for (int n = 0; n < call.classes; ++n) {
    const float* const row = call.weight + static_cast<size_t>(n) * call.channels;
    Values partial{_mm256_setzero_ps(), _mm256_setzero_ps()};
    for (int c = 0; c < call.channels; c += kOutputBlock) {
      const int count = call.channels - c;
      const Values x = load_values(call.pooled + c, count), w = load_values(row + c, count);
      partial = {_mm256_add_ps(partial.low, _mm256_mul_ps(x.low, w.low)),
                 _mm256_add_ps(partial.high, _mm256_mul_ps(x.high, w.high))};
    }
    alignas(32) float lanes[kOutputBlock];
    _mm256_store_ps(lanes, partial.low);
    _mm256_store_ps(lanes + 8, partial.high);
    float sum = 0.0f;
    for (float lane : lanes) sum += lane;
    call.logits[n] = sum + call.bias[n];
  }
}

}  // namespace
}  // namespace mbq
