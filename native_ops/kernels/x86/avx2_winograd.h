// How Winograd convolutions (Lavin & Gray, "Fast Algorithms for Convolutional Neural Networks",
// 2016) are cut into pieces, for AVX2 and AVX-VNNI.
//
// Each tap is a product of matrices, V (tiles x inputs) times U (inputs x outputs), on the tiles of
// avx2_tile.h: 6 Winograd tiles x 16 outputs. The sums of all taps stay in the L1 cache until they
// are transformed.

#pragma once

#include "avx2_direct.h"

namespace mbq {
namespace {

constexpr size_t kStripBytes = 320 << 10;  // of V, which lives in the L2 cache with the weights

// Where the tiles of a call are.
struct TileMap {
  const uint8_t* first;  // code (0, 0) of tile 0
  size_t row, pixel;     // bytes
  int columns;           // tiles in a row
  int last_row;          // the border's last, counted from `first`
};

// How a call is cut. Tiles are counted row by row. A strip is a run of tiles whose V is computed
// and then multiplied by all weights; a group is a run of at most 6 tiles of a strip.
struct WinogradPlan {
  int columns, tiles, blocks, strips;
  bool by_output;  // threads share each strip and split its outputs; else each has its own strips
  size_t tile_bytes;   // of V, one tap
  size_t tile_v;       // all taps
  size_t block_bytes;  // of U
  size_t strip_bytes;

  WinogradPlan(const ConvShape& shape, int out, int taps, size_t bytes, size_t u_bytes,
               int threads) {
    columns = (shape.out_width() + out - 1) / out;
    tiles = columns * ((shape.out_height() + out - 1) / out);
    blocks = blocks_of(shape);
    tile_bytes = bytes;
    tile_v = taps * bytes;
    block_bytes = u_bytes;
    const size_t v_bytes = tiles * tile_v;
    strips = static_cast<int>((v_bytes + kStripBytes - 1) / kStripBytes);
    by_output = threads > 1 && blocks >= threads && blocks * block_bytes > v_bytes;
    if (!by_output) strips = round_up(strips, threads);
    if (strips > tiles) strips = tiles;
    strip_bytes = ((tiles + strips - 1) / strips * tile_v + 63) / 64 * 64;
  }
};

struct Strip {
  int begin, tiles, groups;

  Strip(const WinogradPlan& plan, int strip) {
    const int64_t all = plan.tiles;
    begin = static_cast<int>(all * strip / plan.strips);
    tiles = static_cast<int>(all * (strip + 1) / plan.strips) - begin;
    groups = (tiles + kTilePixels - 1) / kTilePixels;
  }
  // First tile of a group, counted from the strip's first.
  int group(int index) const { return tiles * index / groups; }
};

// 16 outputs of tiles from `first` on: products with U and what follows.
using MultiplyGroup = void (*)(const ConvCall&, const WinogradPlan&, const uint8_t* v,
                               const uint8_t* block, int first, const Finish&);

// Algorithm: kOut outputs on a side of a tile, kTaps,
// tile_bytes and block_bytes of V and U, transform for V of some tiles, kMultiplyGroup by tiles.
template <typename Algorithm>
struct Winograd {
  const ConvCall& call;
  const WinogradPlan& plan;
  TileMap map;
  int strip;

  static WinogradPlan plan_of(const ConvShape& shape, int threads) {
    return {shape,
            Algorithm::kOut,
            Algorithm::kTaps,
            Algorithm::tile_bytes(shape),
            Algorithm::block_bytes(shape),
            threads};
  }

  // V of some groups of a strip: [group][tap][tile][channel].
  void transform(const Strip& cut, int begin, int end, uint8_t* v) const {
    for (int g = begin; g < end; ++g) {
      const int first = cut.group(g), tiles = cut.group(g + 1) - first;
      Algorithm::transform(map, cut.begin + first, tiles, call.shape.inputs, plan.tile_bytes,
                           v + first * plan.tile_v);
    }
  }

  void multiply(const Strip& cut, int begin, int end, const uint8_t* v) const {
    const MultiplyGroup* const by_tiles = call.output.direct
                                              ? Algorithm::template kMultiplyGroup<true>
                                              : Algorithm::template kMultiplyGroup<false>;
    for (int block = begin; block < end; ++block) {
      const uint8_t* const u =
          static_cast<const uint8_t*>(call.prepared) + block * plan.block_bytes;
      const Finish finish(call.output, call.shape, block * kOutputBlock);
      for (int g = 0; g < cut.groups; ++g) {
        const int first = cut.group(g), tiles = cut.group(g + 1) - first;
        by_tiles[tiles - 1](call, plan, v + first * plan.tile_v, u, cut.begin + first, finish);
      }
    }
  }

  static void strips_task(void* context, int thread, int begin, int end) {
    const Winograd& self = *static_cast<const Winograd*>(context);
    uint8_t* const v = static_cast<uint8_t*>(self.call.scratch) + thread * self.plan.strip_bytes;
    for (int index = begin; index < end; ++index) {
      const Strip cut(self.plan, index);
      self.transform(cut, 0, cut.groups, v);
      self.multiply(cut, 0, self.plan.blocks, v);
    }
  }
  static void groups_task(void* context, int, int begin, int end) {
    const Winograd& self = *static_cast<const Winograd*>(context);
    self.transform(Strip(self.plan, self.strip), begin, end,
                   static_cast<uint8_t*>(self.call.scratch));
  }
  static void blocks_task(void* context, int, int begin, int end) {
    const Winograd& self = *static_cast<const Winograd*>(context);
    self.multiply(Strip(self.plan, self.strip), begin, end,
                  static_cast<const uint8_t*>(self.call.scratch));
  }

  static void run(const ConvCall& call, const Parallel& parallel) {
    const WinogradPlan plan = plan_of(call.shape, parallel.threads);
    const CodeImage& image = call.input;
    const int pad = call.shape.pad;
    Winograd self{call,
                  plan,
                  {image.origin - pad * (image.row + image.pixel), image.row, image.pixel,
                   plan.columns, call.shape.height + image.border - 1 + pad},
                  0};
    if (!plan.by_output) {
      parallel.run(parallel.self, plan.strips, strips_task, &self);
      return;
    }
    for (; self.strip < plan.strips; ++self.strip) {
      parallel.run(parallel.self, Strip(plan, self.strip).groups, groups_task, &self);
      parallel.run(parallel.self, plan.blocks, blocks_task, &self);
    }
  }

  static size_t prepared_bytes(const ConvShape& shape) {
    return blocks_of(shape) * Algorithm::block_bytes(shape);
  }

  static void prepare(const ConvShape& shape, const uint8_t* payload, void* prepared) {
    const int groups = groups_of(shape);
    for (int block = 0; block < blocks_of(shape); ++block) {
      uint8_t* const to = static_cast<uint8_t*>(prepared) + block * Algorithm::block_bytes(shape);
      const uint8_t* const from = payload + static_cast<size_t>(block) * 9 * groups * kOutputBlock;
      memset(to, 0, Algorithm::block_bytes(shape));
      for (int c = 0; c < shape.inputs; ++c) {
        for (int lane = 0; lane < kOutputBlock; ++lane) {
          int w[3][3];
          for (int tap = 0; tap < 9; ++tap) {
            const int group = tap * groups + c / kCodesPerByte;
            const int byte = from[static_cast<size_t>(group) * kOutputBlock + lane];
            w[tap / 3][tap % 3] = 2 * (byte >> (2 * (c % kCodesPerByte)) & 3) - 3;
          }
          Algorithm::transform_weights(shape, w, c, lane, to);
        }
      }
    }
  }

  static size_t scratch_bytes(const ConvShape& shape, int threads) {
    const WinogradPlan plan = plan_of(shape, threads);
    return plan.strip_bytes * (plan.by_output ? 1 : threads);
  }

  static constexpr ConvKernel kernel(const char* name) {
    return {name, Algorithm::supports, prepared_bytes, prepare, scratch_bytes, run};
  }
};

}  // namespace
}  // namespace mbq
