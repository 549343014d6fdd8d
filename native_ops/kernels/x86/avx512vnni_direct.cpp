// Direct convolution of any shape: vpdpbusd multiplies four codes by four weights for each of 16
// outputs and adds them to int32 without saturation.
//
// A tile is 14 pixels x 32 outputs, or 28 x 16 where there are only 16: its 28 accumulators stay in
// registers over the whole sum. Each step takes the vectors of 4 inputs of all outputs, broadcasts
// the same 4 codes of every pixel, and multiplies. Pixels are counted over the whole output, so
// that tiles do not end with rows: each pixel has a pointer of its own, and a tap of the kernel is
// the same distance from all of them. Codes are read where they lie, in the bordered image.

#include "avx512vnni_layers.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#include "finish_avx512.h"

namespace mbq {
namespace {

constexpr int kVectorBytes = 64;  // 16 outputs x 4 inputs
constexpr int kPairBlocks = 2;    // blocks of 16 outputs in a tile, where there are two
constexpr int kAccumulators = 28;
// Codes that one thread goes over before it comes back for the next outputs: half an L2 cache.
constexpr size_t kChunkBytes = 512 << 10;

// The inputs of a window: `rows` x `columns` runs of `groups` groups of 4. Where pixels have no
// gaps between them a row of the kernel is one run.
struct Window {
  int rows, columns, groups;
  size_t row_bytes, column_bytes;

  constexpr int steps() const { return rows * columns * groups; }
};

Window window_of(const ConvShape& shape, const CodeImage& input) {
  const int groups = round_up(shape.inputs, kCodesPerByte) / kCodesPerByte;
  if (input.pixel == static_cast<size_t>(groups) * 4) {
    return {shape.kernel_height, 1, shape.kernel_width * groups, input.row, 0};
  }
  return {shape.kernel_height, shape.kernel_width, groups, input.row, input.pixel};
}

// Intrinsics let gcc move accumulators to memory in loops of this size.
[[gnu::always_inline]] inline void dot(__m512i& acc, __m512i codes, __m512i weights) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(weights));
}

[[gnu::always_inline]] inline __m512i broadcast(const uint8_t* codes) {
  __m512i result;
  asm("vpbroadcastd %1, %0" : "=v"(result) : "m"(*reinterpret_cast<const uint8_t (*)[4]>(codes)));
  return result;
}

// `Pixels` windows, each from its pointer on, into accumulators [Pixels][Blocks][16].
template <int Pixels, int Blocks>
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
      for (int group = window.groups; group > 0; --group) {
        __m512i w[Blocks];
#pragma GCC unroll 2
        for (int b = 0; b < Blocks; ++b) w[b] = _mm512_load_si512(weights + b * kVectorBytes);
#pragma GCC unroll 28
        for (int p = 0; p < Pixels; ++p) {
          const __m512i codes = broadcast(from[p] + offset);
#pragma GCC unroll 2
          for (int b = 0; b < Blocks; ++b) dot(acc[p][b], codes, w[b]);
        }
        weights += Blocks * kVectorBytes;
        offset += 4;
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

// Tiles of one and of two blocks, by pixels in units of 4 and of 2.
using Tile = void (*)(const uint8_t* const*, const Window&, const uint8_t*, int32_t*);
constexpr Tile kTiles[kPairBlocks][7] = {
    {tile<4, 1>, tile<8, 1>, tile<12, 1>, tile<16, 1>, tile<20, 1>, tile<24, 1>, tile<28, 1>},
    {tile<2, 2>, tile<4, 2>, tile<6, 2>, tile<8, 2>, tile<10, 2>, tile<12, 2>, tile<14, 2>},
};

// 16 bytes of packed codes become 64 int8 weights. Shifting by 6, 12 and 18 brings the four codes
// of a byte to bits 0, 8, 16 and 24; what else lands around them is masked off.
[[gnu::always_inline]] inline __m512i widen(const uint8_t* packed) {
  const __m512i byte =
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)));
  const __m512i low = _mm512_or_si512(byte, _mm512_slli_epi32(byte, 6));
  const __m512i high = _mm512_or_si512(_mm512_slli_epi32(byte, 12), _mm512_slli_epi32(byte, 18));
  const __m512i codes = _mm512_and_si512(_mm512_or_si512(low, high), _mm512_set1_epi32(0x03030303));
  return _mm512_shuffle_epi8(_mm512_set1_epi32(0x0301fffd), codes);  // -3, -1, 1, 3
}

// The weights of `blocks` blocks of outputs from `first` on, side by side for each group of inputs.
void widen_blocks(const uint8_t* payload, int first, int blocks, int steps, uint8_t* weights) {
  for (int b = 0; b < blocks; ++b) {
    const uint8_t* packed = payload + static_cast<size_t>(first + b) * steps * kOutputBlock;
    uint8_t* to = weights + b * kVectorBytes;
    for (int step = 0; step < steps; ++step) {
      _mm512_store_si512(to, widen(packed));
      packed += kOutputBlock;
      to += blocks * kVectorBytes;
    }
  }
}

int steps_of(const ConvShape& shape) {
  return shape.kernel_height * shape.kernel_width * (round_up(shape.inputs, 4) / 4);
}

int blocks_of(const ConvShape& shape) {
  return round_up(shape.outputs, kOutputBlock) / kOutputBlock;
}

// The output cut into `chunks` runs of pixels x pairs of blocks.
struct Walk {
  const ConvCall* call;
  Window window;
  int blocks, pairs, pixels, chunks;
  size_t step_y, step_x;  // between the windows of neighbours
  const uint8_t* first;   // the first pixel's window
};

template <bool kDirect, int Blocks>
void walk_pixels(const Walk& walk, int begin, int end, int block, const uint8_t* weights) {
  constexpr int kMost = kAccumulators / Blocks, kUnit = kMost / 7;
  const int width = walk.call->shape.out_width();
  const Finish finish[2] = {
      Finish(walk.call->output, walk.call->shape, block * kOutputBlock),
      Finish(walk.call->output, walk.call->shape, (block + Blocks - 1) * kOutputBlock)};
  int y = begin / width, x = begin % width;
  while (begin < end) {
    const int count = end - begin < kMost ? end - begin : kMost;
    const uint8_t* from[kMost];
    const int first_y = y, first_x = x;
    const uint8_t* at = walk.first + y * walk.step_y + x * walk.step_x;
    for (int p = 0; p < count; ++p) {
      from[p] = at;
      at += walk.step_x;
      if (++x == width) {
        x = 0;
        at = walk.first + ++y * walk.step_y;
      }
    }
    const int units = (count + kUnit - 1) / kUnit;
    for (int p = count; p < units * kUnit; ++p) from[p] = from[0];  // computed, never stored
    alignas(64) int32_t acc[kAccumulators * kOutputBlock];
    kTiles[Blocks - 1][units - 1](from, walk.window, weights, acc);
    int to_y = first_y, to_x = first_x;
    const int32_t* result = acc;
    for (int p = 0; p < count; ++p) {
      for (int b = 0; b < Blocks; ++b, result += kOutputBlock) {
        finish[b].template operator()<kDirect>(_mm512_load_si512(result), to_y, to_x);
      }
      if (++to_x == width) {
        to_x = 0;
        ++to_y;
      }
    }
    begin += count;
  }
}

void walk_items(void* context, int thread, int begin, int end) {
  const Walk& walk = *static_cast<const Walk*>(context);
  const ConvCall& call = *walk.call;
  const int steps = walk.window.steps();
  const size_t block_bytes = static_cast<size_t>(steps) * kVectorBytes;
  for (int item = begin; item < end; ++item) {
    const int block = item % walk.pairs * kPairBlocks, chunk = item / walk.pairs;
    const int together = walk.blocks - block >= kPairBlocks ? kPairBlocks : 1;
    const uint8_t* weights;
    if (call.prepared != nullptr) {
      weights = static_cast<const uint8_t*>(call.prepared) + block * block_bytes;
    } else {
      uint8_t* const own = static_cast<uint8_t*>(call.scratch) + thread * kPairBlocks * block_bytes;
      if (item == begin || walk.pairs > 1) {
        widen_blocks(call.payload, block, together, steps, own);
      }
      weights = own;
    }
    const int64_t pixels = walk.pixels;
    const int first = static_cast<int>(pixels * chunk / walk.chunks);
    const int last = static_cast<int>(pixels * (chunk + 1) / walk.chunks);
    if (together == 2) {
      (call.output.direct ? walk_pixels<true, 2> : walk_pixels<false, 2>)(walk, first, last, block,
                                                                          weights);
    } else {
      (call.output.direct ? walk_pixels<true, 1> : walk_pixels<false, 1>)(walk, first, last, block,
                                                                          weights);
    }
  }
}

void run(const ConvCall& call, const Parallel& parallel) {
  const ConvShape& shape = call.shape;
  const CodeImage& input = call.input;
  Walk walk;
  walk.call = &call;
  walk.window = window_of(shape, input);
  walk.blocks = blocks_of(shape);
  walk.pairs = (walk.blocks + kPairBlocks - 1) / kPairBlocks;
  walk.pixels = shape.out_height() * shape.out_width();
  walk.step_y = shape.stride * input.row;
  walk.step_x = shape.stride * input.pixel;
  walk.first = input.origin - shape.pad * (input.row + input.pixel);

  // Threads share out pixels, unless the weights are more than the codes and outputs go around.
  const size_t code_bytes = shape.height * input.row;
  const size_t weight_bytes = static_cast<size_t>(walk.blocks) * walk.window.steps() * kVectorBytes;
  walk.chunks = static_cast<int>((code_bytes + kChunkBytes - 1) / kChunkBytes);
  if (weight_bytes <= code_bytes || walk.pairs < parallel.threads) {
    walk.chunks = round_up(walk.chunks, parallel.threads);
  }
  if (walk.chunks > walk.pixels) walk.chunks = walk.pixels;
  parallel.run(parallel.self, walk.chunks * walk.pairs, walk_items, &walk);
}

bool supports(const ConvShape&, int) { return true; }

size_t prepared_bytes(const ConvShape& shape) {
  return static_cast<size_t>(blocks_of(shape)) * steps_of(shape) * kVectorBytes;
}

void prepare(const ConvShape& shape, const uint8_t* payload, void* prepared) {
  const int blocks = blocks_of(shape), steps = steps_of(shape);
  uint8_t* to = static_cast<uint8_t*>(prepared);
  for (int block = 0; block < blocks; block += kPairBlocks) {
    const int together = blocks - block >= kPairBlocks ? kPairBlocks : 1;
    widen_blocks(payload, block, together, steps, to);
    to += static_cast<size_t>(together) * steps * kVectorBytes;
  }
}

size_t no_scratch(const ConvShape&, int) { return 0; }

size_t nothing_prepared(const ConvShape&) { return 0; }
void prepare_nothing(const ConvShape&, const uint8_t*, void*) {}

size_t widened_bytes(const ConvShape& shape, int threads) {
  return static_cast<size_t>(threads) * kPairBlocks * steps_of(shape) * kVectorBytes;
}

}  // namespace

namespace avx512vnni {

const ConvKernel kDirect{
    "u8s2_conv_direct_14x32__avx512vnni", supports, prepared_bytes, prepare, no_scratch, run};
const ConvKernel kDirectUnpacking{"u8s2_conv_direct_unpacking_14x32__avx512vnni",
                                  supports,
                                  nothing_prepared,
                                  prepare_nothing,
                                  widened_bytes,
                                  run};

}  // namespace avx512vnni
}  // namespace mbq

#endif
