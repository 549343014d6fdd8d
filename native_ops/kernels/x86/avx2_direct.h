// Direct convolution of any shape for AVX2 and AVX-VNNI, on the tiles of avx2_tile.h. Codes are
// read where they lie, in the bordered image.

#pragma once

#include "avx2_tile.h"

namespace mbq {
namespace {

// Codes that one thread goes over before it comes back for the next outputs: half an L2 cache.
constexpr size_t kChunkBytes = 256 << 10;

int blocks_of(const ConvShape& shape) {
  return round_up(shape.outputs, kOutputBlock) / kOutputBlock;
}

int groups_of(const ConvShape& shape) {
  return round_up(shape.inputs, kCodesPerByte) / kCodesPerByte;
}

size_t block_bytes(const ConvShape& shape) {
  return static_cast<size_t>(shape.kernel_height) * shape.kernel_width * groups_of(shape) *
         kGroupBytes;
}

// Where pixels have no gaps between them, a row of the kernel is one run.
Window window_of(const ConvShape& shape, const CodeImage& input) {
  const int groups = groups_of(shape);
  if (input.pixel == static_cast<size_t>(groups) * kGroup) {
    return {shape.kernel_height, 1, shape.kernel_width * groups, input.row, 0};
  }
  return {shape.kernel_height, shape.kernel_width, groups, input.row, input.pixel};
}

// 8 bytes of packed codes become 32 int8 weights. Shifting by 6, 12 and 18 brings the four codes of
// a byte to bits 0, 8, 16 and 24; what else lands around them is masked off.
[[gnu::always_inline]] inline __m256i widen_weights(const uint8_t* packed) {
  const __m256i byte =
      _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(packed)));
  const __m256i low = _mm256_or_si256(byte, _mm256_slli_epi32(byte, 6));
  const __m256i high = _mm256_or_si256(_mm256_slli_epi32(byte, 12), _mm256_slli_epi32(byte, 18));
  const __m256i codes = _mm256_and_si256(_mm256_or_si256(low, high), _mm256_set1_epi32(0x03030303));
  return _mm256_shuffle_epi8(_mm256_set1_epi32(0x0301fffd), codes);  // -3, -1, 1, 3
}

// `bytes` of widened weights.
void widen_all(const uint8_t* payload, size_t bytes, uint8_t* weights) {
  for (uint8_t* const end = weights + bytes; weights != end; weights += 32, payload += 8) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(weights), widen_weights(payload));
  }
}

// The output cut into `chunks` runs of pixels x blocks of outputs.
struct DirectWalk {
  const ConvCall* call;
  Pixels pixels;
  size_t block_bytes;
  int blocks, count, chunks, most;
};

void direct_items(void* context, int thread, int begin, int end) {
  const DirectWalk& walk = *static_cast<const DirectWalk*>(context);
  const ConvCall& call = *walk.call;
  for (int item = begin; item < end; ++item) {
    const int block = item % walk.blocks, chunk = item / walk.blocks;
    const size_t skipped = block * walk.block_bytes;
    const uint8_t* weights = static_cast<const uint8_t*>(call.prepared) + skipped;
    if (call.prepared == nullptr) {
      uint8_t* const own = static_cast<uint8_t*>(call.scratch) + thread * walk.block_bytes;
      if (item == begin || walk.blocks > 1) {
        widen_all(call.payload + skipped / kCodesPerByte, walk.block_bytes, own);
      }
      weights = own;
    }
    const int64_t count = walk.count;
    const int first = static_cast<int>(count * chunk / walk.chunks);
    const int last = static_cast<int>(count * (chunk + 1) / walk.chunks);
    const Finish finish(call.output, call.shape, block * kOutputBlock);
    (call.output.direct ? run_tiles<Codes, true> : run_tiles<Codes, false>)(walk.pixels, first,
                                                                            last, weights,
                                                                            walk.most, finish);
  }
}

// kHighest: of the codes.
template <int kHighest>
void direct(const ConvCall& call, const Parallel& parallel) {
  const ConvShape& shape = call.shape;
  const CodeImage& input = call.input;
  const Pixels pixels{input.origin - shape.pad * (input.row + input.pixel),
                      shape.stride * input.row, shape.stride * input.pixel, window_of(shape, input),
                      shape.out_width()};
  DirectWalk walk{&call,
                  pixels,
                  block_bytes(shape),
                  blocks_of(shape),
                  shape.out_height() * shape.out_width(),
                  0,
                  32767 / (2 * 3 * kHighest)};
  // Threads share out pixels, unless the weights are more than the codes and outputs go around.
  const size_t code_bytes = shape.height * input.row;
  walk.chunks = static_cast<int>((code_bytes + kChunkBytes - 1) / kChunkBytes);
  if (walk.blocks * walk.block_bytes <= code_bytes || walk.blocks < parallel.threads) {
    walk.chunks = round_up(walk.chunks, parallel.threads);
  }
  if (walk.chunks > walk.count) walk.chunks = walk.count;
  parallel.run(parallel.self, walk.chunks * walk.blocks, direct_items, &walk);
}

size_t direct_prepared_bytes(const ConvShape& shape) {
  return blocks_of(shape) * block_bytes(shape);
}

void direct_prepare(const ConvShape& shape, const uint8_t* payload, void* prepared) {
  widen_all(payload, direct_prepared_bytes(shape), static_cast<uint8_t*>(prepared));
}

template <int kLowest, int kHighest>
bool direct_supports(const ConvShape&, int highest) {
  return kLowest <= highest && highest <= kHighest;
}
bool supports_all(const ConvShape&, int) { return true; }

size_t no_bytes(const ConvShape&) { return 0; }
void prepare_nothing(const ConvShape&, const uint8_t*, void*) {}

size_t no_scratch(const ConvShape&, int) { return 0; }
size_t block_for_each(const ConvShape& shape, int threads) { return threads * block_bytes(shape); }

}  // namespace
}  // namespace mbq
