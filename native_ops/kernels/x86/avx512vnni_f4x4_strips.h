// How the fast algorithms cut a layer: into tiles of outputs, counted row by row, whose transformed
// inputs V are computed once and then multiplied by the transformed weights of all outputs. V of a
// strip, a run of tiles, stays in the L2 cache; a group, a run of at most kGroup tiles of a strip,
// is what one call of a kernel multiplies with one unit, two blocks of 16 outputs or the single
// last.
//
// Anonymous, as finish_avx512.h is.

#include "avx512vnni_unpack.h"
#include "finish_avx512.h"

namespace mbq {
namespace {

inline constexpr int kGroup = 7;  // x 32 outputs x 2 taps fill 28 registers
inline constexpr size_t kVector = 64;
inline constexpr size_t kStripBytes = 512 * 1024;

constexpr int ceil_div(int value, int by) { return (value + by - 1) / by; }

struct Cut {
  int tiles, columns;  // in the image; in a row of it
  int blocks, units;
  size_t tile_bytes, block_bytes;  // of V; of the transformed weights of a block
  int strips;
  bool by_output;  // threads share each strip and split its outputs, else each has its own strips
  size_t strip_bytes;
  bool prefetch;  // the outputs are more than stay in the L2 cache beside all else

  Cut(const ConvShape& shape, int tile_height, int tile_width, size_t v_bytes, size_t u_bytes,
      int threads, size_t most_bytes = kStripBytes)
      : tile_bytes(v_bytes), block_bytes(u_bytes) {
    columns = ceil_div(shape.out_width(), tile_width);
    tiles = columns * ceil_div(shape.out_height(), tile_height);
    blocks = ceil_div(shape.outputs, kOutputBlock);
    units = ceil_div(blocks, 2);
    prefetch = static_cast<size_t>(shape.out_height()) * shape.out_width() * blocks * kVector >
               kStripBytes / 4;
    strips = static_cast<int>((tiles * tile_bytes + most_bytes - 1) / most_bytes);
    by_output = strips < threads;
    if (!by_output) strips = ceil_div(strips, threads) * threads;
    if (strips > tiles) strips = tiles;
    strip_bytes = ceil_div(tiles, strips) * tile_bytes;
  }
  int unit_blocks(int unit) const { return blocks - 2 * unit >= 2 ? 2 : 1; }
  size_t prepared_bytes() const { return blocks * block_bytes; }
  // V, then for each thread the transformed weights of a unit where they are not prepared.
  size_t v_bytes(int threads) const { return strip_bytes * (by_output ? 1 : threads); }
  size_t scratch_bytes(int threads, bool unpacking) const {
    return v_bytes(threads) + (unpacking ? threads * 2 * block_bytes : 0);
  }
};

struct Strip {
  int begin, tiles, groups;

  Strip(const Cut& cut, int index)
      : begin(first_of(cut, index)),
        tiles(first_of(cut, index + 1) - begin),
        groups(ceil_div(tiles, kGroup)) {}
  // First tile of a group, counted from the strip's first.
  int group(int index) const { return tiles * index / groups; }

 private:
  static int first_of(const Cut& cut, int index) {
    return static_cast<int>(static_cast<int64_t>(cut.tiles) * index / cut.strips);
  }
};

// A Layer derives from Cut and has
//   void make_u(shape, payload, unit, u) const: the transformed weights of a unit;
//   void transform(call, first, tiles, v) const: V of `tiles` tiles from tile `first` on;
//   static void group<kDirect, B, T>(call, layer, v, u, first, finish, ahead): T tiles from tile
//     `first` on times B blocks of outputs, whose transformed weights are at u; fetches ahead
//     kFetches times.
template <typename Layer>
using MultiplyGroup = void (*)(const ConvCall&, const Layer&, const uint8_t* v, const uint8_t* u,
                               int first, const Finish*, Ahead&);
template <typename Layer, bool kDirect, int B>
constexpr MultiplyGroup<Layer> kGroups[kGroup] = {
    Layer::template group<kDirect, B, 1>, Layer::template group<kDirect, B, 2>,
    Layer::template group<kDirect, B, 3>, Layer::template group<kDirect, B, 4>,
    Layer::template group<kDirect, B, 5>, Layer::template group<kDirect, B, 6>,
    Layer::template group<kDirect, B, 7>};
template <typename Layer>
constexpr const MultiplyGroup<Layer>* kUnits[2][2] = {
    {kGroups<Layer, false, 1>, kGroups<Layer, false, 2>},
    {kGroups<Layer, true, 1>, kGroups<Layer, true, 2>}};

template <typename Layer>
struct Walk {
  const ConvCall& call;
  const Layer& layer;
  int threads, strip;

  uint8_t* scratch() const { return static_cast<uint8_t*>(call.scratch); }

  void transform(const Strip& of, int begin, int end, uint8_t* v) const {
    for (int g = begin; g < end; ++g) {
      const int first = of.group(g);
      layer.transform(call, of.begin + first, of.group(g + 1) - first,
                      v + first * layer.tile_bytes);
    }
  }

  // Transformed weights of a unit: prepared, or made here from packed ones. They are read from L2
  // then, where prepared weights of a large network come from further away.
  const uint8_t* u_of(int thread, int unit) const {
    if (call.prepared != nullptr) {
      return static_cast<const uint8_t*>(call.prepared) + 2 * unit * layer.block_bytes;
    }
    uint8_t* const made = scratch() + layer.v_bytes(threads) + 2 * thread * layer.block_bytes;
    layer.make_u(call.shape, call.payload, unit, made);
    return made;
  }

  // The next unit's weights, which will be transformed, while so many groups are multiplied.
  Ahead ahead_of(int unit, int groups) const {
    if (call.prepared != nullptr || unit + 1 >= layer.units) return {};
    const size_t bytes = packed_block_bytes(call.shape);
    return {call.payload + 2 * (unit + 1) * bytes, layer.unit_blocks(unit + 1) * bytes,
            groups * Layer::kFetches};
  }

  void multiply(const Strip& of, int thread, int unit, const uint8_t* v) const {
    const int block = unit * 2, blocks = layer.unit_blocks(unit);
    const uint8_t* const u = u_of(thread, unit);
    const MultiplyGroup<Layer>* const groups = kUnits<Layer>[call.output.direct][blocks - 1];
    const Finish finish[2] = {Finish(call.output, call.shape, block * kOutputBlock),
                              Finish(call.output, call.shape, (block + blocks - 1) * kOutputBlock)};
    Ahead ahead = ahead_of(unit, of.groups);
    for (int g = 0; g < of.groups; ++g) {
      const int first = of.group(g), tiles = of.group(g + 1) - first;
      groups[tiles - 1](call, layer, v + first * layer.tile_bytes, u, of.begin + first, finish,
                        ahead);
    }
  }

  static void strips(void* context, int thread, int begin, int end) {
    const Walk& walk = *static_cast<const Walk*>(context);
    uint8_t* const v = walk.scratch() + thread * walk.layer.strip_bytes;
    for (int index = begin; index < end; ++index) {
      const Strip strip(walk.layer, index);
      walk.transform(strip, 0, strip.groups, v);
      for (int unit = 0; unit < walk.layer.units; ++unit) {
        walk.multiply(strip, thread, unit, v);
      }
    }
  }
  static void groups(void* context, int, int begin, int end) {
    const Walk& walk = *static_cast<const Walk*>(context);
    walk.transform(Strip(walk.layer, walk.strip), begin, end, walk.scratch());
  }
  static void units(void* context, int thread, int begin, int end) {
    const Walk& walk = *static_cast<const Walk*>(context);
    const Strip strip(walk.layer, walk.strip);
    for (int unit = begin; unit < end; ++unit) {
      walk.multiply(strip, thread, unit, walk.scratch());
    }
  }
};

template <typename Layer>
void prepare_units(const Layer& layer, const ConvShape& shape, const uint8_t* payload,
                   void* prepared) {
  for (int unit = 0; unit < layer.units; ++unit) {
    layer.make_u(shape, payload, unit,
                 static_cast<uint8_t*>(prepared) + 2 * unit * layer.block_bytes);
  }
}

template <typename Layer>
void run_strips(const Layer& layer, const ConvCall& call, const Parallel& parallel) {
  Walk<Layer> walk{call, layer, parallel.threads, 0};
  if (!layer.by_output) {
    parallel.run(parallel.self, layer.strips, Walk<Layer>::strips, &walk);
    return;
  }
  for (; walk.strip < layer.strips; ++walk.strip) {
    const Strip strip(layer, walk.strip);
    parallel.run(parallel.self, strip.groups, Walk<Layer>::groups, &walk);
    parallel.run(parallel.self, layer.units, Walk<Layer>::units, &walk);
  }
}

// The `Rows` x `Columns` pixels that a tile of outputs reads.
template <int Rows, int Columns = Rows>
struct Window {
  const uint8_t* row[Rows];
  ptrdiff_t column[Columns];

  void place(const ConvCall& call, int y, int x) {
    const CodeImage& image = call.input;
    row[0] = image.origin + y * static_cast<ptrdiff_t>(image.row);
    column[0] = x * static_cast<ptrdiff_t>(image.pixel);
    // What lies behind the border only enters outputs that are not written.
    const int rows = call.shape.height + image.border - 1 - y;
    const int columns = call.shape.width + image.border - 1 - x;
    for (int i = 1; i < Rows; ++i) row[i] = row[i - 1] + (i <= rows ? image.row : 0);
    for (int j = 1; j < Columns; ++j) {
      column[j] = column[j - 1] + (j <= columns ? image.pixel : 0);
    }
  }
  const uint8_t* at(int i, int j) const { return row[i] + column[j]; }
};

// Windows of a group; `down` and `right` pixels from tile to tile.
template <int Rows, int Columns>
void place_windows(const ConvCall& call, const Cut& cut, int down, int right, int first, int tiles,
                   Window<Rows, Columns>* windows) {
  int y = first / cut.columns, x = first % cut.columns;
  for (int t = 0; t < tiles; ++t) {
    windows[t].place(call, y * down - call.shape.pad, x * right - call.shape.pad);
    if (++x == cut.columns) {
      x = 0;
      ++y;
    }
  }
}

// Fetches `Columns` pixels of a residual and a stream, B blocks of outputs from `first` on, into
// the cache while their products are summed.
template <int Columns, int B>
void prefetch_row(const LayerOutput& output, const ConvShape& shape, int y, int x, int first) {
  if (y >= shape.out_height()) return;
  for (int c = 0; c < Columns && x + c < shape.out_width(); ++c) {
    const size_t position =
        (static_cast<size_t>(y) * shape.out_width() + x + c) * shape.outputs + first;
    for (int b = 0; b < B; ++b) {
      if (output.residual != nullptr) {
        __builtin_prefetch(output.residual + position + b * kOutputBlock);
      }
      if (output.stream != nullptr) {
        asm volatile("prefetchw %0" : : "m"(output.stream[position + b * kOutputBlock]));
      }
    }
  }
}

// The accumulators of 2x2 outputs of which (y, x) is in the image, of one block.
template <bool kDirect>
[[gnu::always_inline]] inline void finish_square(const Finish& finish, const ConvShape& shape,
                                                 __m512i acc00, __m512i acc01, __m512i acc10,
                                                 __m512i acc11, int y, int x) {
  const bool right = x + 1 < shape.out_width(), below = y + 1 < shape.out_height();
  if (right && below && finish.mask == 0xffff) {
    finish.template square<kDirect>(acc00, acc01, acc10, acc11, y, x);
    return;
  }
  finish.template operator()<kDirect>(acc00, y, x);
  if (right) finish.template operator()<kDirect>(acc01, y, x + 1);
  if (below) finish.template operator()<kDirect>(acc10, y + 1, x);
  if (right && below) finish.template operator()<kDirect>(acc11, y + 1, x + 1);
}

// The kernels of a layer that is cut into strips, Layer(shape, threads, unpacking): with prepared
// weights, and transforming 2-bit weights in every run.
template <typename Layer>
struct StripKernel {
  using Supports = decltype(ConvKernel::supports);

  static constexpr ConvKernel prepared(const char* name, Supports supports) {
    return {name, supports, prepared_bytes, prepare, scratch_bytes<false>, run};
  }
  static constexpr ConvKernel unpacking(const char* name, Supports supports) {
    return {name, supports, no_prepared_bytes, prepare_nothing, scratch_bytes<true>, run};
  }

 private:
  static size_t prepared_bytes(const ConvShape& shape) {
    return Layer(shape, 1, false).prepared_bytes();
  }
  static void prepare(const ConvShape& shape, const uint8_t* payload, void* prepared) {
    prepare_units(Layer(shape, 1, false), shape, payload, prepared);
  }
  static size_t no_prepared_bytes(const ConvShape&) { return 0; }
  static void prepare_nothing(const ConvShape&, const uint8_t*, void*) {}

  template <bool kUnpacking>
  static size_t scratch_bytes(const ConvShape& shape, int threads) {
    return Layer(shape, threads, kUnpacking).scratch_bytes(threads, kUnpacking);
  }
  static void run(const ConvCall& call, const Parallel& parallel) {
    run_strips(Layer(call.shape, parallel.threads, call.prepared == nullptr), call, parallel);
  }
};

}  // namespace
}  // namespace mbq
