// The first convolution for any CPU.

#pragma once

#include "portable_finish.h"

namespace mbq {
namespace {

// A pixel's window is gathered as int16 and multiplied with each output's weights: sums of products
// of int16 that lie side by side are what compilers make the multiply-and-add-pairs instructions
// of.
constexpr int kWindowStep = 16;

// Elements of a window, filled up with zeros.
int window_size(const ConvShape& shape) {
  return round_up(shape.kernel_height * shape.kernel_width * shape.inputs, kWindowStep);
}

// Weights as [outputs, window].
size_t stem_prepared(const ConvShape& shape) {
  return static_cast<size_t>(window_size(shape)) * shape.outputs * sizeof(int16_t);
}

void stem_prepare(const ConvShape& shape, const StemWeights& weights, void* prepared) {
  const size_t size = static_cast<size_t>(shape.kernel_height) * shape.kernel_width * shape.inputs;
  const size_t padded = static_cast<size_t>(window_size(shape));
  int16_t* to = static_cast<int16_t*>(prepared);
  std::memset(to, 0, stem_prepared(shape));
  for (int o = 0; o < shape.outputs; ++o, to += padded) {
    std::memcpy(to, weights.weight + o * size, size * sizeof(int16_t));
  }
}

size_t stem_thread_scratch(const ConvShape& shape) {
  return align(static_cast<size_t>(window_size(shape)) * sizeof(int16_t));
}

size_t stem_scratch(const ConvShape& shape, int threads) {
  return stem_thread_scratch(shape) * static_cast<size_t>(threads);
}

void gather_window(const StemCall& call, int y, int x, int16_t* window) {
  const ConvShape& shape = call.shape;
  for (int ky = 0; ky < shape.kernel_height; ++ky) {
    for (int kx = 0; kx < shape.kernel_width; ++kx, window += shape.inputs) {
      const int iy = y * shape.stride + ky - shape.pad, ix = x * shape.stride + kx - shape.pad;
      const bool inside = iy >= 0 && iy < shape.height && ix >= 0 && ix < shape.width;
      const uint8_t* const from =
          inside ? call.image + (static_cast<size_t>(iy) * shape.width + ix) * shape.inputs
                 : call.weights.pad_value;
      for (int c = 0; c < shape.inputs; ++c) window[c] = from[c];
    }
  }
}

int32_t dot(const int16_t* window, const int16_t* weights, int size) {
  int32_t sum = 0;
  for (int i = 0; i < size / kWindowStep * kWindowStep; ++i) sum += window[i] * weights[i];
  return sum;
}

void stem_rows(void* context, int thread, int begin, int end) {
  const Job<StemCall>& job = *static_cast<const Job<StemCall>*>(context);
  const StemCall& call = job.call;
  const ConvShape& shape = call.shape;
  int16_t* const window = job.scratch(thread);
  const int size = window_size(shape);
  std::memset(window, 0, static_cast<size_t>(size) * sizeof(int16_t));
  for (int y = begin; y < end; ++y) {
    for (int x = 0; x < shape.out_width(); ++x) {
      gather_window(call, y, x, window);
      const int16_t* weights = static_cast<const int16_t*>(call.prepared);
      for (int first = 0; first < shape.outputs; first += kOutputBlock) {
        int32_t sums[kOutputBlock];
        const int left = shape.outputs - first;
        const int count = left < kOutputBlock ? left : kOutputBlock;
        for (int o = 0; o < count; ++o, weights += size) sums[o] = dot(window, weights, size);
        finish(sums, shape, y, x, first, count, call.output);
      }
    }
  }
}

bool stem_supports(const ConvShape&, const StemWeights&) { return true; }

void stem(const StemCall& call, const Parallel& parallel) {
  Job<StemCall> job{call, stem_thread_scratch(call.shape)};
  parallel.run(parallel.self, call.shape.out_height(), stem_rows, &job);
}

}  // namespace
}  // namespace mbq
