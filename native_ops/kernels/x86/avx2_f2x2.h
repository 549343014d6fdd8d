// Winograd F(2x2,3x3) for AVX2 and AVX-VNNI: 3x3 convolutions at stride 1 of codes of up to 6 bits,
// exact, with 4 multiplications for each output instead of 9. For the algebra see
// avx2_f2x2_transform.h.
//
// Each of the 16 taps is a product of matrices, V (tiles x inputs) times U (inputs x outputs), on
// the tiles of avx2_tile.h: 6 tiles x 16 outputs. Sums of all taps stay in the L1 cache until they
// are transformed.

#pragma once

#include "avx2_direct.h"
#include "avx2_f2x2_transform.h"

namespace mbq {
namespace {

constexpr size_t kStripBytes = 192 << 10;    // of V, which lives in L2 with the weights
constexpr size_t kCorrectionBytes = 4 * 64;  // of 16 outputs, before their U
constexpr int kSumsOfGroup = kTaps * kTilePixels * kOutputBlock;

// How a call is cut. Tiles are counted row by row. A strip is a run of tiles whose V is computed
// and then multiplied by all weights; a group is a run of at most 6 tiles of a strip.
struct F2x2Plan {
  int columns, tiles, groups, blocks, strips;
  bool by_output;  // threads share each strip and split its outputs; else each has its own strips
  size_t tile_bytes, block_bytes, strip_bytes;

  F2x2Plan(const ConvShape& shape, int threads) {
    columns = (shape.out_width() + 1) / 2;
    tiles = columns * ((shape.out_height() + 1) / 2);
    groups = groups_of(shape);
    blocks = blocks_of(shape);
    tile_bytes = round_up(shape.inputs, 16);
    block_bytes = kCorrectionBytes + static_cast<size_t>(kTaps) * groups * kGroupBytes;
    const size_t v_bytes = tiles * kTaps * tile_bytes;
    strips = static_cast<int>((v_bytes + kStripBytes - 1) / kStripBytes);
    by_output = threads > 1 && blocks >= threads && blocks * block_bytes > v_bytes;
    if (!by_output) strips = round_up(strips, threads);
    if (strips > tiles) strips = tiles;
    strip_bytes = static_cast<size_t>((tiles + strips - 1) / strips) * kTaps * tile_bytes;
    strip_bytes = (strip_bytes + 63) / 64 * 64;
  }
};

struct F2x2Strip {
  int begin, tiles, groups;

  F2x2Strip(const F2x2Plan& plan, int strip) {
    const int64_t all = plan.tiles;
    begin = static_cast<int>(all * strip / plan.strips);
    tiles = static_cast<int>(all * (strip + 1) / plan.strips) - begin;
    groups = (tiles + kTilePixels - 1) / kTilePixels;
  }
  // First tile of a group, counted from the strip's first.
  int group(int index) const { return tiles * index / groups; }
};

// The widest codes and the offset of V. Two sums of pairs of the middle taps always fit int16.
template <int kMost>
struct F2x2Codes {
  static constexpr int kHighest = kMost;
  static constexpr int kOffset = kHighest > 15 ? 128 : 32;
  static constexpr int steps(int most_u) { return 32767 / (2 * most_u * (kOffset + 2 * kHighest)); }
  static constexpr bool kMiddleInPairs = Codes::kWidens && steps(27) < 8;
  static_assert(kOffset >= 2 * kHighest && kOffset + 2 * kHighest <= 255 && steps(27) >= 2);
};

#if !defined(__AVXVNNI__)

// `P` tiles x 16 outputs of a tap whose sums have to be widened after every two steps: sums are
// int32 in registers.
template <int P>
[[gnu::always_inline]] inline void multiply_in_pairs(const uint8_t* const* tiles, int groups,
                                                     const uint8_t* u, int32_t* sums) {
  const __m256i ones = _mm256_set1_epi16(1);
  __m256i acc[P][kVectors];
#pragma GCC unroll 6
  for (int p = 0; p < P; ++p) acc[p][0] = acc[p][1] = _mm256_setzero_si256();
  size_t offset = 0;
  for (; groups >= 2; groups -= 2, u += 2 * kGroupBytes, offset += 2 * kGroup) {
    __m256i weights[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      weights[i] = _mm256_load_si256(reinterpret_cast<const __m256i*>(u + 32 * i));
    }
#pragma GCC unroll 6
    for (int p = 0; p < P; ++p) {
      const __m256i first = broadcast(tiles[p] + offset);
      const __m256i second = broadcast(tiles[p] + offset + kGroup);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        const __m256i pair = _mm256_add_epi16(_mm256_maddubs_epi16(first, weights[v]),
                                              _mm256_maddubs_epi16(second, weights[2 + v]));
        acc[p][v] = _mm256_add_epi32(acc[p][v], _mm256_madd_epi16(pair, ones));
      }
    }
  }
#pragma GCC unroll 6
  for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      if (groups > 0) {
        const __m256i weights = _mm256_load_si256(reinterpret_cast<const __m256i*>(u + 32 * v));
        const __m256i pair = _mm256_maddubs_epi16(broadcast(tiles[p] + offset), weights);
        acc[p][v] = _mm256_add_epi32(acc[p][v], _mm256_madd_epi16(pair, ones));
      }
      _mm256_store_si256(reinterpret_cast<__m256i*>(sums) + p * kVectors + v, acc[p][v]);
    }
  }
}

#endif

// Sums [taps][T][16] of T tiles x 16 outputs.
template <typename Range, int T>
[[gnu::always_inline]] inline void multiply_taps(const uint8_t* v, size_t tile_bytes, int groups,
                                                 const uint8_t* u, int32_t* sums) {
  const uint8_t* from[T];
#pragma GCC unroll 6
  for (int t = 0; t < T; ++t) from[t] = v + t * tile_bytes;
  const Window window{1, 1, groups, 0, 0};
  for (int tap = 0; tap < (Range::kMiddleInPairs ? kTaps - kMiddleTaps : kTaps); ++tap) {
    sum_windows<Codes, T>(from, window, u, Range::steps(kMostU[tap]), sums);
#pragma GCC unroll 6
    for (int t = 0; t < T; ++t) from[t] += T * tile_bytes;
    u += groups * kGroupBytes;
    sums += T * kOutputBlock;
  }
#if !defined(__AVXVNNI__)
  if constexpr (Range::kMiddleInPairs) {
    for (int tap = 0; tap < kMiddleTaps; ++tap) {
      constexpr int kHalf = (T + 1) / 2;
      multiply_in_pairs<kHalf>(from, groups, u, sums);
      if constexpr (T > kHalf) {
        multiply_in_pairs<T - kHalf>(from + kHalf, groups, u, sums + kHalf * kOutputBlock);
      }
#pragma GCC unroll 6
      for (int t = 0; t < T; ++t) from[t] += T * tile_bytes;
      u += groups * kGroupBytes;
      sums += T * kOutputBlock;
    }
  }
#endif
}

// 16 outputs of T tiles, the first of which is `first`.
template <typename Range, bool kDirect, int T>
void multiply_group(const ConvCall& call, const F2x2Plan& plan, const uint8_t* v,
                    const uint8_t* block, int first, const Finish& finish) {
  alignas(32) int32_t sums[kSumsOfGroup];
  multiply_taps<Range, T>(v, plan.tile_bytes, plan.groups, block + kCorrectionBytes, sums);
  const __m256i* const correction = reinterpret_cast<const __m256i*>(block);
  const int height = call.shape.out_height(), width = call.shape.out_width();
  int y = first / plan.columns * 2, x = first % plan.columns * 2;
  for (int t = 0; t < T; ++t) {
    const __m256i* const m = reinterpret_cast<const __m256i*>(sums) + t * kVectors;
    __m256i low[4], high[4];
    transform_sums(m, T * kVectors, low);
    transform_sums(m + 1, T * kVectors, high);
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      if (y + i / 2 >= height || x + i % 2 >= width) continue;
      finish.operator()<kDirect>(_mm256_add_epi32(low[i], correction[2 * i]),
                                 _mm256_add_epi32(high[i], correction[2 * i + 1]), y + i / 2,
                                 x + i % 2);
    }
    x += 2;
    if (x >= width) {
      x = 0;
      y += 2;
    }
  }
}

using MultiplyGroup = void (*)(const ConvCall&, const F2x2Plan&, const uint8_t*, const uint8_t*,
                               int, const Finish&);
template <typename Range, bool kDirect>
constexpr MultiplyGroup kMultiplyGroup[kTilePixels] = {
    multiply_group<Range, kDirect, 1>, multiply_group<Range, kDirect, 2>,
    multiply_group<Range, kDirect, 3>, multiply_group<Range, kDirect, 4>,
    multiply_group<Range, kDirect, 5>, multiply_group<Range, kDirect, 6>};

template <typename Range>
struct F2x2 {
  const ConvCall& call;
  const F2x2Plan& plan;
  TileMap map;
  int strip;

  // V of some groups of a strip: [group][tap][tile][channel].
  void transform(const F2x2Strip& cut, int begin, int end, uint8_t* v) const {
    const int channels = call.shape.inputs;
    for (int g = begin; g < end; ++g) {
      const int first = cut.group(g), tiles = cut.group(g + 1) - first;
      uint8_t* const to = v + static_cast<size_t>(first) * kTaps * plan.tile_bytes;
      int c = 0;
      for (; channels - c > 16; c += 32) {
        transform_inputs<__m256i, Range::kOffset>(map, cut.begin + first, tiles, c, plan.tile_bytes,
                                                  to);
      }
      if (channels > c) {
        transform_inputs<__m128i, Range::kOffset>(map, cut.begin + first, tiles, c, plan.tile_bytes,
                                                  to);
      }
    }
  }

  void multiply(const F2x2Strip& cut, int begin, int end, const uint8_t* v) const {
    const MultiplyGroup* const by_tiles =
        call.output.direct ? kMultiplyGroup<Range, true> : kMultiplyGroup<Range, false>;
    for (int block = begin; block < end; ++block) {
      const uint8_t* const u =
          static_cast<const uint8_t*>(call.prepared) + block * plan.block_bytes;
      const Finish finish(call.output, call.shape, block * kOutputBlock, 0.25f);
      for (int g = 0; g < cut.groups; ++g) {
        const int first = cut.group(g), tiles = cut.group(g + 1) - first;
        by_tiles[tiles - 1](call, plan, v + static_cast<size_t>(first) * kTaps * plan.tile_bytes, u,
                            cut.begin + first, finish);
      }
    }
  }

  static void strips_task(void* context, int thread, int begin, int end) {
    const F2x2& self = *static_cast<const F2x2*>(context);
    uint8_t* const v = static_cast<uint8_t*>(self.call.scratch) + thread * self.plan.strip_bytes;
    for (int index = begin; index < end; ++index) {
      const F2x2Strip cut(self.plan, index);
      self.transform(cut, 0, cut.groups, v);
      self.multiply(cut, 0, self.plan.blocks, v);
    }
  }
  static void groups_task(void* context, int, int begin, int end) {
    const F2x2& self = *static_cast<const F2x2*>(context);
    self.transform(F2x2Strip(self.plan, self.strip), begin, end,
                   static_cast<uint8_t*>(self.call.scratch));
  }
  static void blocks_task(void* context, int, int begin, int end) {
    const F2x2& self = *static_cast<const F2x2*>(context);
    self.multiply(F2x2Strip(self.plan, self.strip), begin, end,
                  static_cast<const uint8_t*>(self.call.scratch));
  }

  static void run(const ConvCall& call, const Parallel& parallel) {
    const F2x2Plan plan(call.shape, parallel.threads);
    const CodeImage& image = call.input;
    F2x2 self{call,
              plan,
              {image.origin - call.shape.pad * (image.row + image.pixel), image.row, image.pixel,
               plan.columns},
              0};
    if (!plan.by_output) {
      parallel.run(parallel.self, plan.strips, strips_task, &self);
      return;
    }
    for (; self.strip < plan.strips; ++self.strip) {
      parallel.run(parallel.self, F2x2Strip(plan, self.strip).groups, groups_task, &self);
      parallel.run(parallel.self, plan.blocks, blocks_task, &self);
    }
  }

  static bool supports(const ConvShape& shape, int highest) {
    return shape.kernel_height == 3 && shape.kernel_width == 3 && shape.stride == 1 &&
           highest <= Range::kHighest;
  }

  static size_t prepared_bytes(const ConvShape& shape) {
    const F2x2Plan plan(shape, 1);
    return plan.blocks * plan.block_bytes;
  }

  static size_t scratch_bytes(const ConvShape& shape, int threads) {
    const F2x2Plan plan(shape, threads);
    return plan.strip_bytes * (plan.by_output ? 1 : threads);
  }

  // For each block of outputs: corrections [4][16], then U [taps][groups][16][4].
  static void prepare(const ConvShape& shape, const uint8_t* payload, void* prepared) {
    const F2x2Plan plan(shape, 1);
    for (int block = 0; block < plan.blocks; ++block) {
      uint8_t* const to = static_cast<uint8_t*>(prepared) + block * plan.block_bytes;
      const uint8_t* const from =
          payload + static_cast<size_t>(block) * 9 * plan.groups * kOutputBlock;
      for (int lane = 0; lane < kOutputBlock; ++lane) {
        int32_t sums[kTaps] = {};
        for (int c = 0; c < plan.groups * kCodesPerByte; ++c) {
          int8_t u[kTaps] = {};
          if (c < shape.inputs) {
            int w[3][3];
            for (int tap = 0; tap < 9; ++tap) {
              const int group = tap * plan.groups + c / kCodesPerByte;
              const int byte = from[static_cast<size_t>(group) * kOutputBlock + lane];
              w[tap / 3][tap % 3] = 2 * (byte >> (2 * (c % kCodesPerByte)) & 3) - 3;
            }
            transform_weights(w, u);
          }
          for (int tap = 0; tap < kTaps; ++tap) {
            const size_t step = static_cast<size_t>(tap) * plan.groups + c / kCodesPerByte;
            to[kCorrectionBytes + step * kGroupBytes + lane * 4 + c % kCodesPerByte] =
                static_cast<uint8_t>(u[tap]);
            sums[tap] += u[tap];
          }
        }
        int32_t correction[4];
        corrections(sums, correction);
        for (int i = 0; i < 4; ++i) {
          reinterpret_cast<int32_t*>(to)[i * kOutputBlock + lane] = Range::kOffset * correction[i];
        }
      }
    }
  }

  static constexpr ConvKernel kernel(const char* name) {
    return {name, supports, prepared_bytes, prepare, scratch_bytes, run};
  }
};

}  // namespace
}  // namespace mbq
