// Tiles of whole rows of a small map, which leave out what the border would add.
//
// The border around codes is 0, and so is what a tap on it adds: at 7x7 that is 80 of 441 products
// of a 3x3 kernel. Rows at the top and the bottom take fewer rows of the kernel; pixels at the left
// and the right sit out a column of it. So there are three loops over channels: of all pixels, and
// without the first or the last of each row.
//
// Anonymous for the reason that finish_avx512.h gives. Include after <immintrin.h>.

#pragma once

#include "avx512vnni_tiles.h"
#include "avx512vnni_unpack.h"

namespace mbq {
namespace {

// Which rows and columns of a 3x3 kernel with a border of 1 lie on the map.
struct MapEdges {
  int height, width, stride;  // of the input

  explicit MapEdges(const ConvShape& shape)
      : height(shape.height), width(shape.width), stride(shape.stride) {}

  // Where it pays: on a map of 28 columns a fiftieth of the products is left out.
  static bool suits(const ConvShape& shape) {
    const int columns = shape.out_width();
    return shape.kernel_height == 3 && shape.kernel_width == 3 && shape.pad == 1 &&
           (columns == 4 || columns == 7 || columns == 8 || columns == 14);
  }

  int first_row(int y) const { return y == 0 ? 1 : 0; }
  int end_row(int y) const { return y * stride + 1 == height ? 2 : 3; }
  bool same_rows(int y0, int y1) const {
    return first_row(y0) == first_row(y1) && end_row(y0) == end_row(y1);
  }
  bool leaves_right(int out_width) const { return (out_width - 1) * stride + 1 == width; }
};

// What a tile takes of the kernel; column 0 always leaves out the first pixel of a row.
struct EdgeWindow {
  int first_row, end_row;
  bool right;  // column 2 leaves out the last pixel of a row
  int steps;   // of a tap
  size_t row_bytes, column_bytes;
  Ahead& ahead;
};

// One tap of the pixels First .. Last of each row.
template <typename Operands, int First, int Last, int Width, int Pixels, int Blocks>
[[gnu::always_inline]] inline void add_tap(__m512i (&acc)[Pixels][Blocks],
                                           const uint8_t* const (&from)[Pixels], size_t offset,
                                           int steps, const uint8_t* weights) {
  for (; steps > 0; --steps) {
    __m512i w[Blocks];
#pragma GCC unroll 2
    for (int b = 0; b < Blocks; ++b) w[b] = _mm512_load_si512(weights + b * kVectorBytes);
#pragma GCC unroll 28
    for (int p = 0; p < Pixels; ++p) {
      if (p % Width < First || p % Width > Last) continue;
      const __m512i inputs = broadcast(from[p] + offset);
#pragma GCC unroll 2
      for (int b = 0; b < Blocks; ++b) Operands::dot(acc[p][b], inputs, w[b]);
    }
    weights += Blocks * kVectorBytes;
    offset += kStepBytes;
  }
}

// `Rows` rows of `Width` pixels that need the same rows of the kernel. Weights are
// [3][3][step][Blocks] vectors.
template <typename Operands, typename TileFinish, int Width, int Rows, int Blocks>
void edge_tile(const uint8_t* const* pixels, const EdgeWindow& window, const uint8_t* weights,
               const TileFinish& finish, uint8_t* const* to) {
  constexpr int kPixels = Width * Rows, kLast = Width - 1;
  __m512i acc[kPixels][Blocks];
  const uint8_t* from[kPixels];
#pragma GCC unroll 28
  for (int p = 0; p < kPixels; ++p) {
    from[p] = pixels[p];
#pragma GCC unroll 2
    for (int b = 0; b < Blocks; ++b) acc[p][b] = _mm512_setzero_si512();
  }
  const int steps = window.steps;
  const size_t column = window.column_bytes;
  const size_t tap = static_cast<size_t>(steps) * Blocks * kVectorBytes;
  weights += 3 * window.first_row * tap;
  for (int row = window.first_row; row < window.end_row; ++row, weights += 3 * tap) {
    const size_t offset = row * window.row_bytes;
    window.ahead.fetch();
    add_tap<Operands, 1, kLast, Width>(acc, from, offset, steps, weights);
    window.ahead.fetch();
    add_tap<Operands, 0, kLast, Width>(acc, from, offset + column, steps, weights + tap);
    window.ahead.fetch();
    if (window.right) {
      add_tap<Operands, 0, kLast - 1, Width>(acc, from, offset + 2 * column, steps,
                                             weights + 2 * tap);
    } else {
      add_tap<Operands, 0, kLast, Width>(acc, from, offset + 2 * column, steps, weights + 2 * tap);
    }
  }
  finish(acc, to);
}

template <typename TileFinish>
using EdgeTile = void (*)(const uint8_t* const*, const EdgeWindow&, const uint8_t*,
                          const TileFinish&, uint8_t* const*);

// One row of a map, or two where both fit the registers.
template <typename O, typename F, int Blocks>
EdgeTile<F> edge_tile_of(int width, int rows) {
  switch (width) {
    case 4:
      return rows == 1 ? edge_tile<O, F, 4, 1, Blocks> : edge_tile<O, F, 4, 2, Blocks>;
    case 7:
      return rows == 1 ? edge_tile<O, F, 7, 1, Blocks> : edge_tile<O, F, 7, 2, Blocks>;
    case 8:
      return edge_tile<O, F, 8, 1, Blocks>;
    default:
      return edge_tile<O, F, 14, 1, Blocks>;
  }
}

// for_tiles() for a run of whole rows of a map that MapEdges suits; `pixel` bytes from one input
// pixel to the next. Fetches ahead 6 times for each row, or more often.
template <typename Operands, int Blocks, typename TileFinish, typename Done>
void for_edge_tiles(const PixelRun& run, const Window& window, const MapEdges& edges, size_t pixel,
                    const uint8_t* weights, const TileFinish& finish, const TileTarget& target,
                    Ahead& ahead, const Done& done) {
  constexpr int kMost = kAccumulators / Blocks;
  const int end = run.end / run.width;
  int rows = 1;
  for (int y = run.begin / run.width; y < end; y += rows) {
    rows = 2 * run.width <= kMost && y + 1 < end && edges.same_rows(y, y + 1) ? 2 : 1;
    const uint8_t* from[kMost];
    uint8_t* to[kMost];
    for (int p = 0; p < rows * run.width; ++p) {
      const int row = y + p / run.width, x = p % run.width;
      from[p] = run.first + row * run.step_y + x * run.step_x;
      to[p] = target.first + row * target.step_y + x * target.step_x;
    }
    const EdgeWindow here{edges.first_row(y),
                          edges.end_row(y),
                          edges.leaves_right(run.width),
                          window.all_steps() / 9,
                          window.row_bytes,
                          pixel,
                          ahead};
    edge_tile_of<Operands, TileFinish, Blocks>(run.width, rows)(from, here, weights, finish, to);
    done(rows * run.width, y, 0);
  }
}

}  // namespace
}  // namespace mbq
