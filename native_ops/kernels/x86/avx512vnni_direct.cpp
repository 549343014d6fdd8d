// Direct convolution of any shape: vpdpbusd multiplies four codes by four weights for each of 16
// outputs and adds them to int32 without saturation. Codes are read where they lie, in the bordered
// image; tiles of pixels go over the ends of rows.

#include "avx512vnni_layers.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#include "avx512vnni_tiles.h"
#include "finish_avx512.h"

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
  PixelRun run;  // of all pixels
};

// Codes straight from 64 accumulators, of as many pixels as these are of `Blocks` blocks.
template <int Blocks>
struct PackedFinish {
  static constexpr bool kNeedsPlaces = true;
  static constexpr int kPixels = 4 / Blocks, kOutputs = Blocks * kOutputBlock;

  // Whether all outputs are there, and all results stay within int32, so that nothing need be
  // clamped before it: what is not a number converts to the least int32, and ends as the lowest
  // code.
  static bool suffices(const ConvCall& call, int first) {
    const ConvShape& shape = call.shape;
    if (shape.outputs - first < kOutputs) return false;
    const float most = 255.0f * 3.0f * kCodesPerByte * static_cast<float>(steps_of(shape));
    for (int o = first; o < first + kOutputs; ++o) {
      const float scale = call.output.scale[o], bias = call.output.bias[o];
      const float bound = (scale < 0 ? -scale : scale) * most + (bias < 0 ? -bias : bias);
      if (bound >= 0x1p30f) return false;
    }
    return true;
  }

  __m512 scale[Blocks], bias[Blocks];
  __m512i lowest, highest;

  PackedFinish(const ConvCall& call, int first)
      : lowest(_mm512_set1_epi8(static_cast<char>(call.output.codes[0].lowest))),
        highest(_mm512_set1_epi8(static_cast<char>(call.output.codes[0].highest))) {
    for (int b = 0; b < Blocks; ++b) {
      scale[b] = _mm512_loadu_ps(call.output.scale + first + b * kOutputBlock);
      bias[b] = _mm512_loadu_ps(call.output.bias + first + b * kOutputBlock);
    }
  }

  [[gnu::always_inline]] static __m512i round(__m512i acc, __m512 scale, __m512 bias) {
    return _mm512_cvtps_epi32(_mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale), bias));
  }

  [[gnu::always_inline]] static void store(uint8_t* to, __m128i codes) {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), codes);
  }
  [[gnu::always_inline]] static void store(uint8_t* to, __m256i codes) {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), codes);
  }

  template <int Pixels>
  [[gnu::always_inline]] void operator()(const __m512i (&acc)[Pixels][Blocks],
                                         uint8_t* const* to) const {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const __m512 scale0 = scale[0], bias0 = bias[0], scale1 = scale[Blocks - 1],
                 bias1 = bias[Blocks - 1];
    const __m512i low_limit = lowest, high_limit = highest;
#pragma GCC unroll 7
    for (int p = 0; p < Pixels; p += kPixels) {
      // Packing saturates, which keeps the order of values: limits may follow as bytes. Its lanes
      // hold four outputs of each of the vectors.
      const __m512i low = _mm512_packs_epi32(round(acc[p][0], scale0, bias0),
                                             round(acc[p + 1 / Blocks][1 % Blocks], scale1, bias1));
      const __m512i high =
          _mm512_packs_epi32(round(acc[p + 2 / Blocks][0], scale0, bias0),
                             round(acc[p + 3 / Blocks][1 % Blocks], scale1, bias1));
      const __m512i packed = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
      const __m512i codes = _mm512_min_epu8(_mm512_max_epu8(packed, low_limit), high_limit);
      if constexpr (Blocks == 2) {
        store(to[p], _mm512_castsi512_si256(codes));
        store(to[p + 1], _mm512_extracti64x4_epi64(codes, 1));
      } else {
        store(to[p], _mm512_castsi512_si128(codes));
        store(to[p + 1], _mm512_extracti32x4_epi32(codes, 1));
        store(to[p + 2], _mm512_extracti32x4_epi32(codes, 2));
        store(to[p + 3], _mm512_extracti32x4_epi32(codes, 3));
      }
    }
  }
};

template <bool Direct, int Blocks>
void walk_pixels(const Walk& walk, const PixelRun& run, int block, const uint8_t* weights) {
  const ConvCall& call = *walk.call;
  const int first = block * kOutputBlock;
  if (Direct && PackedFinish<Blocks>::suffices(call, first)) {
    const CodeImage& image = call.output.codes[0].image;
    const TileTarget target{image.origin + first, image.row, image.pixel};
    for_tiles<CodesByBytes, Blocks>(run, walk.window, weights, PackedFinish<Blocks>(call, first),
                                    target, [](int, int, int) {});
    return;
  }
  const Finish finish[2] = {Finish(call.output, call.shape, first),
                            Finish(call.output, call.shape, first + (Blocks - 1) * kOutputBlock)};
  for_pixels<CodesByBytes, Blocks, Direct>(run, walk.window, weights, finish, 0);
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
    PixelRun run = walk.run;
    run.begin = static_cast<int>(pixels * chunk / walk.chunks);
    run.end = static_cast<int>(pixels * (chunk + 1) / walk.chunks);
    const bool direct = call.output.direct;
    const auto walk_run = together == 2 ? (direct ? walk_pixels<true, 2> : walk_pixels<false, 2>)
                                        : (direct ? walk_pixels<true, 1> : walk_pixels<false, 1>);
    walk_run(walk, run, block, weights);
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
