// Convolutions of codes for any CPU: tiles of pixels by outputs.
//
// Products of a code and a weight are at most 3 * 255, so 42 of them fit int16, which every vector
// unit multiplies and adds at twice the rate of int32. Sums are widened after that many.

#pragma once

#include "portable_finish.h"

namespace mbq {
namespace {

// Eight lanes of int16, a vector register or two on most CPUs. The compiler's vectors rather than
// arrays, because arrays of accumulators end up in memory.
using Lanes = int16_t __attribute__((vector_size(16)));
constexpr int kLanes = 8;
constexpr int kNarrowProducts = 32767 / (3 * 255);

Lanes load(const int16_t* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

Lanes spread(int value) {
  const auto v = static_cast<int16_t>(value);
  return Lanes{v, v, v, v, v, v, v, v};
}

bool supports_all(const ConvShape&, int) { return true; }
size_t nothing_prepared(const ConvShape&) { return 0; }

// ---- Convolution: a tile of pixels by one or two blocks of outputs.
//
// A code is spread over a vector once for all outputs of the tile, so two blocks by two pixels are
// faster than one by four where there are that many outputs.

constexpr int kMostBlocks = 2;
constexpr int kTileVectors = 4;  // pixels times blocks

// Widened weights are kept for the taps and inputs of one tile's outputs.
size_t conv_thread_scratch(const ConvShape& shape) {
  const int blocks = shape.outputs > kOutputBlock ? kMostBlocks : 1;
  return align(static_cast<size_t>(shape.kernel_height) * shape.kernel_width * shape.inputs *
               blocks * kOutputBlock * sizeof(int16_t));
}

size_t conv_scratch(const ConvShape& shape, int threads) {
  return conv_thread_scratch(shape) * static_cast<size_t>(threads);
}

size_t block_bytes(const ConvShape& shape) {
  return static_cast<size_t>(shape.kernel_height) * shape.kernel_width *
         round_up(shape.inputs, kCodesPerByte) / kCodesPerByte * kOutputBlock;
}

// Weights of one block, the outputs of each tap and input `step` apart.
void unpack(const ConvShape& shape, const uint8_t* payload, int16_t* weights, int step) {
  const int groups = round_up(shape.inputs, kCodesPerByte) / kCodesPerByte;
  for (int tap = 0; tap < shape.kernel_height * shape.kernel_width; ++tap) {
    for (int c = 0; c < shape.inputs; ++c, weights += step) {
      const uint8_t* const from = payload + (tap * groups + c / kCodesPerByte) * kOutputBlock;
      const int shift = c % kCodesPerByte * 2;
      for (int o = 0; o < kOutputBlock; ++o) {
        weights[o] = static_cast<int16_t>(2 * (from[o] >> shift & 3) - 3);
      }
    }
  }
}

template <int kPixels, int kBlocks>
struct ConvTile {
  static constexpr int kOutputs = kBlocks * kOutputBlock;
  static constexpr int kVectors = kOutputs / kLanes;

  Lanes narrow[kPixels][kVectors] = {};
  int32_t sums[kPixels][kOutputs] = {};

  void widen() {
    for (int p = 0; p < kPixels; ++p) {
      int16_t values[kOutputs];
      std::memcpy(values, narrow[p], sizeof values);
      for (int o = 0; o < kOutputs; ++o) sums[p][o] += values[o];
      for (int v = 0; v < kVectors; ++v) narrow[p][v] = spread(0);
    }
  }

  // `count` inputs of one tap, at most kNarrowProducts since sums were widened.
  void multiply(const uint8_t* codes, size_t step, const int16_t* weights, int count) {
    Lanes now[kPixels][kVectors];
    std::memcpy(now, narrow, sizeof now);
    for (int c = 0; c < count; ++c, weights += kOutputs) {
      Lanes code[kPixels];
      for (int p = 0; p < kPixels; ++p) code[p] = spread(codes[c + p * step]);
      for (int v = 0; v < kVectors; ++v) {
        const Lanes weight = load(weights + v * kLanes);
        for (int p = 0; p < kPixels; ++p) now[p][v] += code[p] * weight;
      }
    }
    std::memcpy(narrow, now, sizeof now);
  }

  void run(const ConvCall& call, const int16_t* weights, int y, int x, int first) {
    const ConvShape& shape = call.shape;
    const size_t step = call.input.pixel * static_cast<size_t>(shape.stride);
    int room = kNarrowProducts;
    for (int ky = 0; ky < shape.kernel_height; ++ky) {
      for (int kx = 0; kx < shape.kernel_width; ++kx) {
        const uint8_t* codes = pixel_at(call.input, y * shape.stride + ky - shape.pad,
                                        x * shape.stride + kx - shape.pad);
        for (int left = shape.inputs; left > 0;) {
          const int now = left < room ? left : room;
          multiply(codes, step, weights, now);
          weights += now * kOutputs;
          codes += now;
          left -= now;
          room -= now;
          if (room == 0) {
            widen();
            room = kNarrowProducts;
          }
        }
      }
    }
    widen();
    for (int p = 0; p < kPixels; ++p) {
      for (int b = 0; b < kBlocks; ++b) {
        const int from = first + b * kOutputBlock, left = shape.outputs - from;
        finish(sums[p] + b * kOutputBlock, shape, y, x + p, from,
               left < kOutputBlock ? left : kOutputBlock, call.output);
      }
    }
  }
};

template <int kBlocks>
void conv_row(const ConvCall& call, const int16_t* weights, int y, int first) {
  constexpr int kPixels = kTileVectors / kBlocks;
  const int width = call.shape.out_width();
  int x = 0;
  for (; x + kPixels <= width; x += kPixels) {
    ConvTile<kPixels, kBlocks>{}.run(call, weights, y, x, first);
  }
  for (; x < width; ++x) ConvTile<1, kBlocks>{}.run(call, weights, y, x, first);
}

void conv_rows(void* context, int thread, int begin, int end) {
  const Job<ConvCall>& job = *static_cast<const Job<ConvCall>*>(context);
  const ConvCall& call = job.call;
  const ConvShape& shape = call.shape;
  int16_t* const weights = job.scratch(thread);
  const uint8_t* payload = call.payload;
  for (int first = 0; first < shape.outputs;) {
    const int blocks = shape.outputs - first > kOutputBlock ? kMostBlocks : 1;
    for (int b = 0; b < blocks; ++b, payload += block_bytes(shape)) {
      unpack(shape, payload, weights + b * kOutputBlock, blocks * kOutputBlock);
    }
    for (int y = begin; y < end; ++y) {
      if (blocks == 1) {
        conv_row<1>(call, weights, y, first);
      } else {
        conv_row<kMostBlocks>(call, weights, y, first);
      }
    }
    first += blocks * kOutputBlock;
  }
}

void conv(const ConvCall& call, const Parallel& parallel) {
  Job<ConvCall> job{call, conv_thread_scratch(call.shape)};
  parallel.run(parallel.self, call.shape.out_height(), conv_rows, &job);
}

// ---- Depthwise: one pixel by 16 channels, sums of at most 25 products in int16.

size_t depthwise_thread_scratch(const ConvShape& shape) {
  return align(static_cast<size_t>(shape.kernel_height) * shape.kernel_width * kOutputBlock *
               sizeof(int16_t));
}

size_t depthwise_scratch(const ConvShape& shape, int threads) {
  return depthwise_thread_scratch(shape) * static_cast<size_t>(threads);
}

void depthwise_pixel(const ConvCall& call, const int16_t* weights, int y, int x, int first,
                     int count) {
  const ConvShape& shape = call.shape;
  int16_t sums[kOutputBlock] = {};
  for (int ky = 0; ky < shape.kernel_height; ++ky) {
    const uint8_t* codes =
        pixel_at(call.input, y * shape.stride + ky - shape.pad, x * shape.stride - shape.pad) +
        first;
    // All 16 lanes: what follows the channels may be read and is not written.
    for (int kx = 0; kx < shape.kernel_width; ++kx, codes += call.input.pixel) {
      for (int c = 0; c < kOutputBlock; ++c) {
        sums[c] = static_cast<int16_t>(sums[c] + codes[c] * weights[c]);
      }
      weights += kOutputBlock;
    }
  }
  int32_t wide[kOutputBlock];
  for (int c = 0; c < kOutputBlock; ++c) wide[c] = sums[c];
  finish(wide, shape, y, x, first, count, call.output);
}

void depthwise_rows(void* context, int thread, int begin, int end) {
  const Job<ConvCall>& job = *static_cast<const Job<ConvCall>*>(context);
  const ConvCall& call = job.call;
  const ConvShape& shape = call.shape;
  int16_t* const weights = job.scratch(thread);
  const int taps = shape.kernel_height * shape.kernel_width;
  const int groups = round_up(taps, kCodesPerByte) / kCodesPerByte;
  const uint8_t* payload = call.payload;
  for (int first = 0; first < shape.outputs; first += kOutputBlock) {
    const int left = shape.outputs - first;
    for (int tap = 0; tap < taps; ++tap) {
      const uint8_t* const from = payload + tap / kCodesPerByte * kOutputBlock;
      const int shift = tap % kCodesPerByte * 2;
      for (int c = 0; c < kOutputBlock; ++c) {
        weights[tap * kOutputBlock + c] = static_cast<int16_t>(2 * (from[c] >> shift & 3) - 3);
      }
    }
    payload += groups * kOutputBlock;
    for (int y = begin; y < end; ++y) {
      for (int x = 0; x < shape.out_width(); ++x) {
        depthwise_pixel(call, weights, y, x, first, left < kOutputBlock ? left : kOutputBlock);
      }
    }
  }
}

void depthwise(const ConvCall& call, const Parallel& parallel) {
  Job<ConvCall> job{call, depthwise_thread_scratch(call.shape)};
  parallel.run(parallel.self, call.shape.out_height(), depthwise_rows, &job);
}

}  // namespace
}  // namespace mbq
