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

// Codes that one thread goes over before it comes back for the next outputs: half an L2 cache.
constexpr size_t kChunkBytes = 512 << 10;

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
  static constexpr int kPixels = 4 / Blocks, kOutputs = Blocks * kOutputBlock;

  // Whether all results stay within int32, so that nothing need be clamped before it: what is not a
  // number converts to the least int32, and ends as the lowest code.
  static bool suffices(const ConvCall& call, int first) {
    const ConvShape& shape = call.shape;
    const float most = 255.0f * 3.0f * kCodesPerByte * static_cast<float>(steps_of(shape));
    for (int o = first; o < first + kOutputs && o < shape.outputs; ++o) {
      const float scale = call.output.scale[o], bias = call.output.bias[o];
      const float bound = (scale < 0 ? -scale : scale) * most + (bias < 0 ? -bias : bias);
      if (bound >= 0x1p30f) return false;
    }
    return true;
  }

  const CodeImage* image;
  int first;
  __mmask32 mask;
  bool all;
  __m512 scale[Blocks], bias[Blocks];
  __m512i lowest, highest;

  PackedFinish(const ConvCall& call, int first_output)
      : image(&call.output.codes[0].image),
        first(first_output),
        lowest(_mm512_set1_epi8(static_cast<char>(call.output.codes[0].lowest))),
        highest(_mm512_set1_epi8(static_cast<char>(call.output.codes[0].highest))) {
    const int left = call.shape.outputs - first;
    all = left >= kOutputs;
    mask = static_cast<__mmask32>((uint64_t{1} << (all ? kOutputs : left)) - 1);
    for (int b = 0; b < Blocks; ++b) {
      const __mmask16 present = static_cast<__mmask16>(mask >> b * kOutputBlock);
      scale[b] = _mm512_maskz_loadu_ps(present, call.output.scale + first + b * kOutputBlock);
      bias[b] = _mm512_maskz_loadu_ps(present, call.output.bias + first + b * kOutputBlock);
    }
  }

  [[gnu::always_inline]] __m512i round(const int32_t* accumulators, int vector) const {
    const __m512i acc = _mm512_load_si512(accumulators + vector * kOutputBlock);
    const int b = vector % Blocks;
    return _mm512_cvtps_epi32(
        _mm512_add_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(acc), scale[b]), bias[b]));
  }

  // `part` of the bytes goes to one pixel.
  [[gnu::always_inline]] void store(__m128i part, const PixelWalk& to) const {
    uint8_t* const at = image->origin + to.y * image->row + to.x * image->pixel + first;
    if (all) {
      _mm_storeu_si128(reinterpret_cast<__m128i*>(at), part);
    } else {
      _mm_mask_storeu_epi8(at, static_cast<__mmask16>(mask), part);
    }
  }
  [[gnu::always_inline]] void store(__m256i part, const PixelWalk& to) const {
    uint8_t* const at = image->origin + to.y * image->row + to.x * image->pixel + first;
    if (all) {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(at), part);
    } else {
      _mm256_mask_storeu_epi8(at, mask, part);
    }
  }

  [[gnu::always_inline]] void operator()(const int32_t* accumulators, int count,
                                         PixelWalk to) const {
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    for (; count > 0; count -= kPixels, accumulators += 4 * kOutputBlock) {
      // Packing saturates, which keeps the order of values: limits may follow as bytes. Its lanes
      // hold four outputs of each of the vectors.
      const __m512i low = _mm512_packs_epi32(round(accumulators, 0), round(accumulators, 1));
      const __m512i high = _mm512_packs_epi32(round(accumulators, 2), round(accumulators, 3));
      const __m512i packed = _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, high));
      const __m512i bytes = _mm512_min_epu8(_mm512_max_epu8(packed, lowest), highest);
      if constexpr (Blocks == 2) {
        store(_mm512_castsi512_si256(bytes), to);
        to.next();
        if (count > 1) store(_mm512_extracti64x4_epi64(bytes, 1), to);
        to.next();
      } else {
        store(_mm512_castsi512_si128(bytes), to);
        to.next();
        if (count > 1) store(_mm512_extracti32x4_epi32(bytes, 1), to);
        to.next();
        if (count > 2) store(_mm512_extracti32x4_epi32(bytes, 2), to);
        to.next();
        if (count > 3) store(_mm512_extracti32x4_epi32(bytes, 3), to);
        to.next();
      }
    }
  }
};

template <bool Direct, int Blocks>
void walk_pixels(const Walk& walk, const PixelRun& run, int block, const uint8_t* weights) {
  const ConvCall& call = *walk.call;
  const int first = block * kOutputBlock;
  if (Direct && PackedFinish<Blocks>::suffices(call, first)) {
    for_tiles<CodesByBytes, Blocks>(run, walk.window, weights, PackedFinish<Blocks>(call, first));
    return;
  }
  const Finish finish[2] = {Finish(call.output, call.shape, first),
                            Finish(call.output, call.shape, first + (Blocks - 1) * kOutputBlock)};
  for_tiles<CodesByBytes, Blocks>(run, walk.window, weights,
                                  [&](const int32_t* acc, int count, PixelWalk to) {
                                    finish_pixels<Blocks, Direct>(finish, acc, count, to);
                                  });
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
  const size_t weight_bytes =
      static_cast<size_t>(walk.blocks) * walk.window.all_steps() * kVectorBytes;
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
