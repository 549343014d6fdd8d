// Streams, pools and the classifier for any CPU.

#pragma once

#include "portable_finish.h"

namespace mbq {
namespace {

// The first pixel of a window that lies inside, and the first behind it.
struct Window {
  int top, left, bottom, right;

  Window(const PoolShape& pool, int y, int x)
      : top(y * pool.stride - pool.pad),
        left(x * pool.stride - pool.pad),
        bottom(top + pool.kernel < pool.height ? top + pool.kernel : pool.height),
        right(left + pool.kernel < pool.width ? left + pool.kernel : pool.width) {
    if (top < 0) top = 0;
    if (left < 0) left = 0;
  }
};

constexpr int kStreamBlock = 64;

void stream_pixel(const StreamCall& call, int y, int x, size_t at) {
  const PoolShape none{call.height, call.width, call.channels, 1, 1, 0};
  const Window window(call.pool.kernel == 0 ? none : call.pool, y, x);
  for (int first = 0; first < call.kept; first += kStreamBlock) {
    float values[kStreamBlock] = {};
    const int left = call.kept - first, there = call.channels - first;
    const int count = left < kStreamBlock ? left : kStreamBlock;
    const int read = there < count ? there : count;  // zeros where the stream has fewer
    for (int iy = window.top; iy < window.bottom; ++iy) {
      for (int ix = window.left; ix < window.right; ++ix) {
        const float* const from =
            call.input + (static_cast<size_t>(iy) * call.width + ix) * call.channels + first;
        const bool start = iy == window.top && ix == window.left;
        for (int c = 0; c < read; ++c) {
          values[c] = start || from[c] > values[c] ? from[c] : values[c];
        }
      }
    }
    if (call.stream != nullptr) {
      std::memcpy(call.stream + at * call.kept + first, values, count * sizeof(float));
    }
    for (int k = 0; k < call.code_outputs; ++k) {
      const CodeOutput& codes = call.codes[k];
      write_codes(values, count, codes.scale, codes.offset, codes,
                  pixel_at(codes.image, y, x) + first);
    }
  }
}

void stream_rows(void* context, int, int begin, int end) {
  const StreamCall& call = *static_cast<const StreamCall*>(context);
  const int width = call.pool.kernel == 0 ? call.width : call.pool.out_width();
  for (int y = begin; y < end; ++y) {
    for (int x = 0; x < width; ++x) {
      stream_pixel(call, y, x, static_cast<size_t>(y) * width + x);
    }
  }
}

void stream(const StreamCall& call, const Parallel& parallel) {
  StreamCall copy = call;
  const int height = call.pool.kernel == 0 ? call.height : call.pool.out_height();
  parallel.run(parallel.self, height, stream_rows, &copy);
}

struct PoolJob {
  PoolShape shape;
  CodeImage input, output;
};

void pool_rows(void* context, int, int begin, int end) {
  const PoolJob& job = *static_cast<const PoolJob*>(context);
  const auto channels = static_cast<size_t>(job.shape.channels);
  for (int y = begin; y < end; ++y) {
    for (int x = 0; x < job.shape.out_width(); ++x) {
      const Window window(job.shape, y, x);
      uint8_t* const to = pixel_at(job.output, y, x);
      std::memcpy(to, pixel_at(job.input, window.top, window.left), channels);
      for (int iy = window.top; iy < window.bottom; ++iy) {
        for (int ix = window.left; ix < window.right; ++ix) {
          const uint8_t* const from = pixel_at(job.input, iy, ix);
          for (size_t c = 0; c < channels; ++c) to[c] = from[c] > to[c] ? from[c] : to[c];
        }
      }
    }
  }
}

void pool_codes(const PoolShape& shape, const CodeImage& input, const CodeImage& output,
                const Parallel& parallel) {
  PoolJob job{shape, input, output};
  parallel.run(parallel.self, shape.out_height(), pool_rows, &job);
}

void average_streams(const HeadCall& call) {
  const int channels = call.channels;
  float* const mean = call.pooled;
  float* const total = call.pooled + channels;
  const float by_pixels = 1.0f / static_cast<float>(call.pixels);
  for (int c = 0; c < channels; ++c) mean[c] = 0.0f;
  for (int s = 0; s < call.count; ++s) {
    for (int c = 0; c < channels; ++c) total[c] = 0.0f;
    const float* from = call.streams[s];
    for (int p = 0; p < call.pixels; ++p, from += channels) {
      for (int c = 0; c < channels; ++c) total[c] += from[c];
    }
    for (int c = 0; c < channels; ++c) mean[c] += total[c] * by_pixels;
  }
  if (!call.mean) return;
  const float by_streams = 1.0f / static_cast<float>(call.count);
  for (int c = 0; c < channels; ++c) mean[c] *= by_streams;
}

void classify(const HeadCall& call, const Parallel&) {
  constexpr int kPartialSums = 16;  // channel c adds to sum c % 16
  average_streams(call);
  const float* weight = call.weight;
  for (int n = 0; n < call.classes; ++n, weight += call.channels) {
    float partial[kPartialSums] = {};
    for (int first = 0; first < call.channels; first += kPartialSums) {
      const int left = call.channels - first;
      for (int i = 0; i < (left < kPartialSums ? left : kPartialSums); ++i) {
        partial[i] += call.pooled[first + i] * weight[first + i];
      }
    }
    float sum = 0.0f;
    for (int i = 0; i < kPartialSums; ++i) sum += partial[i];
    call.logits[n] = sum + call.bias[n];
  }
}

}  // namespace
}  // namespace mbq
