// Direct convolution of any shape: vpdpbusd multiplies four codes by four weights for each of 16
// outputs and adds them to int32 without saturation. Codes are read where they lie, in the bordered
// image; tiles of pixels go over the ends of rows.

#include "avx512vnni_layers.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#include "avx512vnni_edge_tiles.h"
#include "avx512vnni_packed.h"
#include "avx512vnni_tiles.h"
#include "avx512vnni_unpack.h"

namespace mbq {
namespace {

// Codes, read and written, that one thread goes over before it comes back for the next outputs:
// what stays in the L2 cache with the weights.
constexpr size_t kChunkBytes = 128 << 10;

// Where pixels have no gaps between them a row of the kernel is one run.
Window window_of(const ConvShape& shape, const CodeImage& input) {
  const int groups = round_up(shape.inputs, kCodesPerByte) / kCodesPerByte;
  if (input.pixel == static_cast<size_t>(groups) * 4) {
    return {shape.kernel_height, 1, shape.kernel_width * groups, input.row, 0};
  }
  return {shape.kernel_height, shape.kernel_width, groups, input.row, input.pixel};
}

// The weights of `blocks` blocks of outputs from `first` on, side by side for each group of inputs.
void widen_blocks(const uint8_t* payload, int first, int blocks, int steps, uint8_t* weights) {
  for (int b = 0; b < blocks; ++b) {
    const uint8_t* packed = payload + static_cast<size_t>(first + b) * steps * kOutputBlock;
    uint8_t* to = weights + b * kVectorBytes;
    for (int step = 0; step < steps; ++step) {
      _mm512_store_si512(to, unpack_weights(packed));
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

// Packed weights that another run will unpack.
struct Next {
  const uint8_t* packed = nullptr;
  size_t bytes = 0;
};

// The output cut into `chunks` runs of pixels x pairs of blocks.
struct Walk {
  const ConvCall* call;
  Window window;
  int blocks, pairs, pixels, chunks;
  PixelRun run;  // of all pixels

  Next packed(int pair) const {
    const int block = pair * kPairBlocks, left = blocks - block;
    const size_t bytes = packed_block_bytes(call->shape);
    return {call->payload + block * bytes, (left < kPairBlocks ? left : kPairBlocks) * bytes};
  }
};

// for_tiles() of a run, without what the border would add where that pays. next: the packed weights
// that are read afterwards.
template <int Blocks, typename TileFinish, typename Done>
void walk_tiles(const Walk& walk, const PixelRun& run, const uint8_t* weights,
                const TileFinish& finish, const TileTarget& target, const Next& next,
                const Done& done) {
  if constexpr (Blocks == kPairBlocks) {
    const bool whole_rows = run.begin % run.width == 0 && run.end % run.width == 0;
    if (whole_rows && MapEdges::suits(walk.call->shape)) {
      Ahead ahead(next.packed, next.bytes, 6 * (run.end - run.begin) / run.width);
      for_edge_tiles<CodesByBytes, Blocks>(run, walk.window, MapEdges(walk.call->shape),
                                           walk.call->input.pixel, weights, finish, target, ahead,
                                           done);
      return;
    }
  }
  Ahead ahead(next.packed, next.bytes, (run.end - run.begin) / (kAccumulators / Blocks) + 1);
  for_tiles<CodesByBytes, Blocks>(run, walk.window, weights, finish, target,
                                  [&](int count, int y, int x) {
                                    ahead.fetch();
                                    done(count, y, x);
                                  });
}

template <int Blocks>
void walk_pixels(const Walk& walk, const PixelRun& run, int block, const uint8_t* weights,
                 const Next& next) {
  const ConvCall& call = *walk.call;
  const int first = block * kOutputBlock;
  if (PackedFinish<Blocks>::suffices(call.output, call.shape, first)) {
    const CodeImage& image = call.output.codes[0].image;
    walk_tiles<Blocks>(walk, run, weights, PackedFinish<Blocks>(call.output, first),
                       {image.origin + first, image.row, image.pixel}, next, [](int, int, int) {});
    return;
  }
  alignas(64) int32_t accumulators[kAccumulators * kOutputBlock];
  const auto walk_with = [&](const auto& finish) {
    walk_tiles<Blocks>(walk, run, weights, Accumulators{},
                       {reinterpret_cast<uint8_t*>(accumulators), 0, 0}, next,
                       [&](int count, int y, int x) { finish(accumulators, count, y, x); });
  };
  if (GroupFinish<Blocks>::suffices(call.output, call.shape, first)) {
    walk_with(GroupFinish<Blocks>(call.output, call.shape, first, 0));
  } else {
    walk_with(AnyFinish<Blocks>(call.output, call.shape, first, 0));
  }
}

void walk_items(void* context, int thread, int begin, int end) {
  const Walk& walk = *static_cast<const Walk*>(context);
  const ConvCall& call = *walk.call;
  const int steps = walk.window.all_steps();
  const size_t block_bytes = static_cast<size_t>(steps) * kVectorBytes;
  for (int item = begin; item < end; ++item) {
    const int block = item % walk.pairs * kPairBlocks, chunk = item / walk.pairs;
    const int together = walk.blocks - block >= kPairBlocks ? kPairBlocks : 1;
    const uint8_t* weights;
    Next next;
    if (call.prepared != nullptr) {
      weights = static_cast<const uint8_t*>(call.prepared) + block * block_bytes;
    } else {
      uint8_t* const own = static_cast<uint8_t*>(call.scratch) + thread * kPairBlocks * block_bytes;
      if (item == begin || walk.pairs > 1) {
        widen_blocks(call.payload, block, together, steps, own);
      }
      weights = own;
      if (item + 1 < end && walk.pairs > 1) next = walk.packed((item + 1) % walk.pairs);
    }
    const int64_t pixels = walk.pixels;
    PixelRun run = walk.run;
    run.begin = static_cast<int>(pixels * chunk / walk.chunks);
    run.end = static_cast<int>(pixels * (chunk + 1) / walk.chunks);
    (together == 2 ? walk_pixels<2> : walk_pixels<1>)(walk, run, block, weights, next);
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
  walk.run = {0,
              walk.pixels,
              shape.out_width(),
              input.origin - shape.pad * (input.row + input.pixel),
              shape.stride * input.row,
              shape.stride * input.pixel};

  // Threads share out pixels, unless the weights are more than the codes and outputs go around.
  const size_t code_bytes = shape.height * input.row;
  const size_t output_bytes = static_cast<size_t>(walk.pixels) * shape.outputs;
  const size_t weight_bytes =
      static_cast<size_t>(walk.blocks) * walk.window.all_steps() * kVectorBytes;
  walk.chunks = static_cast<int>((code_bytes + output_bytes) / kChunkBytes + 1);
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
