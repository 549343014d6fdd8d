// The inner loop of the convolutions that multiply in the order of the definition.
//
// A tile is 14 pixels x 32 outputs, or 28 x 16 where there are only 16: its 28 accumulators stay in
// registers over the whole sum. Each step takes 32 bits of every pixel, four codes or two int16,
// and multiplies them by the vectors that hold the same inputs' weights of 16 outputs each. Pixels
// have pointers of their own, so that tiles need not end with rows; a tap of the kernel is the same
// distance from all of them.
//
// Anonymous for the reason that finish_avx512.h gives. Include after <immintrin.h>.

#pragma once

#include "../layers.h"

namespace mbq {
namespace {

constexpr int kVectorBytes = 64;  // 16 outputs x 32 bits
constexpr int kStepBytes = 4;     // of a pixel
constexpr int kPairBlocks = 2;    // blocks of 16 outputs in a tile, where there are two
constexpr int kAccumulators = 28;

// The inputs of a window: `rows` x `columns` runs of `steps` x 32 bits.
struct Window {
  int rows, columns, steps;
  size_t row_bytes, column_bytes;

  constexpr int all_steps() const { return rows * columns * steps; }
};

// As assembly, because gcc moves accumulators of intrinsics to memory in loops of this size.
struct CodesByBytes {
  [[gnu::always_inline]] static void dot(__m512i& acc, __m512i codes, __m512i weights) {
    asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(weights));
  }
};
struct WordsByWords {
  [[gnu::always_inline]] static void dot(__m512i& acc, __m512i pixels, __m512i weights) {
    asm("vpdpwssd %2, %1, %0" : "+v"(acc) : "v"(pixels), "v"(weights));
  }
};

[[gnu::always_inline]] inline __m512i broadcast(const uint8_t* step) {
  __m512i result;
  asm("vpbroadcastd %1, %0"
      : "=v"(result)
      : "m"(*reinterpret_cast<const uint8_t (*)[kStepBytes]>(step)));
  return result;
}

// `Pixels` windows, each from its pointer on, into accumulators [Pixels][Blocks][16]. Weights are
// [step][Blocks] vectors.
template <typename Operands, int Pixels, int Blocks>
void tile(const uint8_t* const* pixels, const Window& window, const uint8_t* weights,
          int32_t* accumulators) {
  __m512i acc[Pixels][Blocks];
  const uint8_t* from[Pixels];
#pragma GCC unroll 28
  for (int p = 0; p < Pixels; ++p) {
    from[p] = pixels[p];
#pragma GCC unroll 2
    for (int b = 0; b < Blocks; ++b) acc[p][b] = _mm512_setzero_si512();
  }
  for (int row = 0; row < window.rows; ++row) {
    for (int column = 0; column < window.columns; ++column) {
      size_t offset = row * window.row_bytes + column * window.column_bytes;
      for (int step = window.steps; step > 0; --step) {
        __m512i w[Blocks];
#pragma GCC unroll 2
        for (int b = 0; b < Blocks; ++b) w[b] = _mm512_load_si512(weights + b * kVectorBytes);
#pragma GCC unroll 28
        for (int p = 0; p < Pixels; ++p) {
          const __m512i inputs = broadcast(from[p] + offset);
#pragma GCC unroll 2
          for (int b = 0; b < Blocks; ++b) Operands::dot(acc[p][b], inputs, w[b]);
        }
        weights += Blocks * kVectorBytes;
        offset += kStepBytes;
      }
    }
  }
#pragma GCC unroll 28
  for (int p = 0; p < Pixels; ++p) {
#pragma GCC unroll 2
    for (int b = 0; b < Blocks; ++b) {
      _mm512_store_si512(accumulators + (p * Blocks + b) * kOutputBlock, acc[p][b]);
    }
  }
}

using Tile = void (*)(const uint8_t* const*, const Window&, const uint8_t*, int32_t*);

// Tiles of one and of two blocks, by pixels in units of 4 and of 2.
template <typename Operands>
constexpr Tile kTiles[kPairBlocks][7] = {
    {tile<Operands, 4, 1>, tile<Operands, 8, 1>, tile<Operands, 12, 1>, tile<Operands, 16, 1>,
     tile<Operands, 20, 1>, tile<Operands, 24, 1>, tile<Operands, 28, 1>},
    {tile<Operands, 2, 2>, tile<Operands, 4, 2>, tile<Operands, 6, 2>, tile<Operands, 8, 2>,
     tile<Operands, 10, 2>, tile<Operands, 12, 2>, tile<Operands, 14, 2>},
};

// A run of an image's pixels, counted over its rows, and where the window of pixel (0, 0) begins.
struct PixelRun {
  int begin, end, width;
  const uint8_t* first;
  size_t step_y, step_x;
};

// Steps through the pixels of a run.
struct PixelWalk {
  int y, x, width;

  [[gnu::always_inline]] void next() {
    if (++x == width) {
      x = 0;
      ++y;
    }
  }
};

// Calls finish(accumulators [pixels][Blocks][16], pixels, where the first of them goes) for the
// tiles of a run. Accumulators go on to a multiple of 64, with no meaning.
template <typename Operands, int Blocks, typename Finisher>
[[gnu::always_inline]] inline void for_tiles(const PixelRun& run, const Window& window,
                                             const uint8_t* weights, const Finisher& finish) {
  constexpr int kMost = kAccumulators / Blocks, kUnit = kMost / 7;
  static_assert(kUnit * Blocks * kOutputBlock == 64);
  PixelWalk walk{run.begin / run.width, run.begin % run.width, run.width};
  for (int begin = run.begin; begin < run.end;) {
    const int count = run.end - begin < kMost ? run.end - begin : kMost;
    const uint8_t* from[kMost];
    const PixelWalk first = walk;
    for (int p = 0; p < count; ++p, walk.next()) {
      from[p] = run.first + walk.y * run.step_y + walk.x * run.step_x;
    }
    const int units = (count + kUnit - 1) / kUnit;
    for (int p = count; p < units * kUnit; ++p) from[p] = from[0];  // computed, never stored
    alignas(64) int32_t accumulators[kAccumulators * kOutputBlock];
    kTiles<Operands>[Blocks - 1][units - 1](from, window, weights, accumulators);
    finish(accumulators, count, first);
    begin += count;
  }
}

// One vector after the other by finish[block](accumulators, y, x).
template <int Blocks, bool Direct, typename Finish>
[[gnu::always_inline]] inline void finish_pixels(const Finish (&finish)[kPairBlocks],
                                                 const int32_t* accumulators, int count,
                                                 PixelWalk to) {
  for (int p = 0; p < count; ++p, to.next()) {
    for (int b = 0; b < Blocks; ++b, accumulators += kOutputBlock) {
      finish[b].template operator()<Direct>(_mm512_load_si512(accumulators), to.y, to.x);
    }
  }
}

}  // namespace
}  // namespace mbq
