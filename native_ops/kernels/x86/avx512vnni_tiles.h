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

// Keeps accumulators [Pixels][Blocks][16] for a finish that is too long for every tile.
struct Accumulators {
  static constexpr bool kNeedsPlaces = false;  // only the target's first
  template <int Pixels, int Blocks>
  [[gnu::always_inline]] void operator()(const __m512i (&acc)[Pixels][Blocks],
                                         uint8_t* const* to) const {
    int32_t* const all = reinterpret_cast<int32_t*>(to[0]);
#pragma GCC unroll 28
    for (int i = 0; i < Pixels * Blocks; ++i) {
      _mm512_store_si512(all + i * kOutputBlock, acc[i / Blocks][i % Blocks]);
    }
  }
};

// `Pixels` windows, each from its pointer on, or kStep bytes apart from the first pointer on if
// that is not 0. Weights are [step][Blocks] vectors.
template <typename Operands, typename TileFinish, int Pixels, int Blocks, int kStep = 0>
void tile(const uint8_t* const* pixels, const Window& window, const uint8_t* weights,
          const TileFinish& finish, uint8_t* const* to) {
  __m512i acc[Pixels][Blocks];
  const uint8_t* from[Pixels];
#pragma GCC unroll 28
  for (int p = 0; p < Pixels; ++p) {
    from[p] = kStep == 0 ? pixels[p] : pixels[0];
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
          const __m512i inputs = broadcast(from[p] + offset + p * kStep);
#pragma GCC unroll 2
          for (int b = 0; b < Blocks; ++b) Operands::dot(acc[p][b], inputs, w[b]);
        }
        weights += Blocks * kVectorBytes;
        offset += kStepBytes;
      }
    }
  }
  finish(acc, to);
}

template <typename TileFinish>
using Tile = void (*)(const uint8_t* const*, const Window&, const uint8_t*, const TileFinish&,
                      uint8_t* const*);

// Tiles by pixels in units of 4 or 2.
template <typename O, typename F, int Blocks, int Unit = 4 / Blocks>
constexpr Tile<F> kTiles[7] = {
    tile<O, F, Unit, Blocks>,     tile<O, F, 2 * Unit, Blocks>, tile<O, F, 3 * Unit, Blocks>,
    tile<O, F, 4 * Unit, Blocks>, tile<O, F, 5 * Unit, Blocks>, tile<O, F, 6 * Unit, Blocks>,
    tile<O, F, 7 * Unit, Blocks>,
};

// Tiles whose pixels lie side by side in a row, `Step` bytes apart: as many addresses as pixels do
// not fit the registers, and with one block there is a load of one for each multiplication.
template <typename O, typename F, int Blocks, int Step, int Unit = 4 / Blocks>
constexpr Tile<F> kRowTiles[7] = {
    tile<O, F, Unit, Blocks, Step>,     tile<O, F, 2 * Unit, Blocks, Step>,
    tile<O, F, 3 * Unit, Blocks, Step>, tile<O, F, 4 * Unit, Blocks, Step>,
    tile<O, F, 5 * Unit, Blocks, Step>, tile<O, F, 6 * Unit, Blocks, Step>,
    tile<O, F, 7 * Unit, Blocks, Step>,
};

// Windows of three taps in each row, `Step` bytes apart as the pixels are: what tap 1 of a pixel
// reads is tap 0 of the next and tap 2 of the one before. Each broadcast serves all three, where
// one for each multiplication would be the limit.
constexpr int steps_of_tap(int step_bytes) { return round_up(step_bytes, kStepBytes) / kStepBytes; }

constexpr bool shares_taps(const Window& window, int step_bytes) {
  const int steps = steps_of_tap(step_bytes);
  if (window.columns == 1) return step_bytes % kStepBytes == 0 && window.steps == 3 * steps;
  return window.columns == 3 && window.steps == steps &&
         window.column_bytes == static_cast<size_t>(step_bytes);
}

template <typename Operands, typename TileFinish, int Pixels, int Step>
void shared_tile(const uint8_t* const* pixels, const Window& window, const uint8_t* weights,
                 const TileFinish& finish, uint8_t* const* to) {
  constexpr int kSteps = steps_of_tap(Step), kTapWeights = kSteps * kVectorBytes;
  __m512i acc[Pixels][1];
#pragma GCC unroll 28
  for (int p = 0; p < Pixels; ++p) acc[p][0] = _mm512_setzero_si512();
  for (int row = 0; row < window.rows; ++row, weights += 2 * kTapWeights) {
    const uint8_t* from = pixels[0] + row * window.row_bytes;
    for (int step = 0; step < kSteps; ++step, from += kStepBytes, weights += kVectorBytes) {
      const __m512i w0 = _mm512_load_si512(weights);
      const __m512i w1 = _mm512_load_si512(weights + kTapWeights);
      const __m512i w2 = _mm512_load_si512(weights + 2 * kTapWeights);
#pragma GCC unroll 30
      for (int p = 0; p < Pixels + 2; ++p) {
        const __m512i inputs = broadcast(from + p * Step);
        if (p >= 2) Operands::dot(acc[p - 2][0], inputs, w2);
        if (p >= 1 && p <= Pixels) Operands::dot(acc[p - 1][0], inputs, w1);
        if (p < Pixels) Operands::dot(acc[p][0], inputs, w0);
      }
    }
  }
  finish(acc, to);
}

template <typename O, typename F, int Step, int Unit = 4>
constexpr Tile<F> kSharedTiles[7] = {
    shared_tile<O, F, Unit, Step>,     shared_tile<O, F, 2 * Unit, Step>,
    shared_tile<O, F, 3 * Unit, Step>, shared_tile<O, F, 4 * Unit, Step>,
    shared_tile<O, F, 5 * Unit, Step>, shared_tile<O, F, 6 * Unit, Step>,
    shared_tile<O, F, 7 * Unit, Step>,
};

// A run of an image's pixels, counted over its rows: where the windows of its pixels begin.
struct PixelRun {
  int begin, end, width;
  const uint8_t* first;  // of pixel (0, 0)
  size_t step_y, step_x;
};

// Where tiles put results: pixel (y, x) at first + y * step_y + x * step_x.
struct TileTarget {
  uint8_t* first;
  size_t step_y, step_x;
};

// Calls TileFinish for the tiles of a run and then done(pixels, y and x of the first of them).
// kStep: bytes between neighbouring pixels for which it is fastest.
template <typename Operands, int Blocks, int kStep = 16 * Blocks, typename TileFinish,
          typename Done>
[[gnu::always_inline]] inline void for_tiles(const PixelRun& run, const Window& window,
                                             const uint8_t* weights, const TileFinish& finish,
                                             const TileTarget& target, const Done& done) {
  constexpr int kMost = kAccumulators / Blocks, kUnit = kMost / 7;
  int y = run.begin / run.width, x = run.begin % run.width;
  const uint8_t* next_from = run.first + y * run.step_y + x * run.step_x;
  uint8_t* next_to = target.first + y * target.step_y + x * target.step_x;
  // From behind a row to the next.
  const size_t from_gap = run.step_y - run.width * run.step_x;
  const size_t to_gap = target.step_y - run.width * target.step_x;
  // Rows are cut into equal parts if those are whole units.
  const int parts = (run.width + kMost - 1) / kMost;
  const bool in_rows =
      run.step_x == kStep && x == 0 && run.end % run.width == 0 && run.width % (parts * kUnit) == 0;
  const int most = in_rows ? run.width / parts : kMost;
  const Tile<TileFinish>* tiles = in_rows ? kRowTiles<Operands, TileFinish, Blocks, kStep>
                                          : kTiles<Operands, TileFinish, Blocks>;
  if constexpr (Blocks == 1 && (kStep == 3 || kStep == 16)) {  // colours; 16 channels
    if (in_rows && shares_taps(window, kStep)) tiles = kSharedTiles<Operands, TileFinish, kStep>;
  }
  for (int begin = run.begin; begin < run.end;) {
    const int count = run.end - begin < most ? run.end - begin : most;
    const uint8_t* from[kMost];
    uint8_t* to[kMost];
    const int first_y = y, first_x = x;
    if (in_rows) {
      from[0] = next_from;
      for (int p = 0; p < count; ++p) to[p] = next_to + p * target.step_x;
      const bool ends = (x += count) == run.width;
      next_from += count * run.step_x + (ends ? from_gap : 0);
      next_to += count * target.step_x + (ends ? to_gap : 0);
      y += ends;
      x = ends ? 0 : x;
    }
    for (int p = in_rows ? count : 0; p < count; ++p) {
      from[p] = next_from;
      if constexpr (TileFinish::kNeedsPlaces) to[p] = next_to;
      const bool ends = ++x == run.width;
      next_from += run.step_x + (ends ? from_gap : 0);
      next_to += target.step_x + (ends ? to_gap : 0);
      y += ends;
      x = ends ? 0 : x;
    }
    const int units = (count + kUnit - 1) / kUnit;
    for (int p = count; p < units * kUnit; ++p) {  // the first once more
      from[p] = from[0];
      to[p] = to[0];
    }
    if constexpr (!TileFinish::kNeedsPlaces) to[0] = target.first;
    tiles[units - 1](from, window, weights, finish, to);
    done(count, first_y, first_x);
    begin += count;
  }
}

// The same by finish(accumulators [pixels][Blocks][16], pixels, y and x of the first of them).
template <typename Operands, int Blocks, int kStep = 16 * Blocks, typename LayerFinish>
[[gnu::always_inline]] inline void for_accumulators(const PixelRun& run, const Window& window,
                                                    const uint8_t* weights,
                                                    const LayerFinish& finish) {
  alignas(64) int32_t accumulators[kAccumulators * kOutputBlock];
  const TileTarget target{reinterpret_cast<uint8_t*>(accumulators), 0, 0};
  for_tiles<Operands, Blocks, kStep>(
      run, window, weights, Accumulators{}, target,
      [&](int count, int y, int x) { finish(accumulators, count, y, x); });
}

}  // namespace
}  // namespace mbq
