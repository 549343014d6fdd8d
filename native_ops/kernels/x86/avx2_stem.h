// The first convolution for AVX2 and AVX-VNNI: pairs of int16 pixels and weights, on the tiles of
// avx2_tile.h. Pixels are widened once into an image with the padding pixels around.

#pragma once

#include "avx2_tile.h"

namespace mbq {
namespace {

// Elements of a kernel row, which is followed by weight 0 if it is odd.
int stem_row(const ConvShape& shape) { return shape.kernel_width * shape.inputs; }
int stem_pairs(const ConvShape& shape) { return (stem_row(shape) + 1) / 2; }

size_t stem_block_bytes(const ConvShape& shape) {
  return static_cast<size_t>(shape.kernel_height) * stem_pairs(shape) * kGroupBytes;
}

size_t stem_prepared_bytes(const ConvShape& shape) {
  return round_up(shape.outputs, kOutputBlock) / kOutputBlock * stem_block_bytes(shape);
}

// [block of 16 outputs][kernel row][pair][16 outputs][2]
void stem_prepare(const ConvShape& shape, const StemWeights& weights, void* prepared) {
  const int present = stem_row(shape), pairs = stem_pairs(shape);
  int16_t* to = static_cast<int16_t*>(prepared);
  for (int first = 0; first < shape.outputs; first += kOutputBlock) {
    for (int ky = 0; ky < shape.kernel_height; ++ky) {
      for (int pair = 0; pair < pairs; ++pair) {
        for (int o = first; o < first + kOutputBlock; ++o) {
          const size_t row = (static_cast<size_t>(o) * shape.kernel_height + ky) * present;
          for (int i = 2 * pair; i < 2 * pair + 2; ++i) {
            *to++ = o < shape.outputs && i < present ? weights.weight[row + i] : int16_t{0};
          }
        }
      }
    }
  }
}

struct StemWalk {
  const StemCall* call;
  int16_t* image;
  size_t row;  // elements
  Pixels pixels;
};

// Rows of the image with padding.
void stem_pad(void* context, int, int begin, int end) {
  const StemWalk& walk = *static_cast<const StemWalk*>(context);
  const ConvShape& shape = walk.call->shape;
  const auto pad = [&](int16_t* to, int pixels) {
    for (int i = 0; i < pixels; ++i) {
      for (int c = 0; c < shape.inputs; ++c) *to++ = walk.call->weights.pad_value[c];
    }
    return to;
  };
  const size_t elements = static_cast<size_t>(shape.width) * shape.inputs;
  for (int row = begin; row < end; ++row) {
    int16_t* to = walk.image + row * walk.row;
    const int y = row - shape.pad;
    if (y < 0 || y >= shape.height) {
      pad(to, shape.width + 2 * shape.pad);
      continue;
    }
    to = pad(to, shape.pad);
    const uint8_t* const from = walk.call->image + y * elements;
    size_t i = 0;
    for (; i + 16 <= elements; i += 16) {
      const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm256_cvtepu8_epi16(bytes));
    }
    for (; i < elements; ++i) to[i] = from[i];
    pad(to + elements, shape.pad);
  }
}

void stem_rows(void* context, int, int begin, int end) {
  const StemWalk& walk = *static_cast<const StemWalk*>(context);
  const StemCall& call = *walk.call;
  const ConvShape& shape = call.shape;
  const int width = shape.out_width();
  const uint8_t* weights = static_cast<const uint8_t*>(call.prepared);
  for (int first = 0; first < shape.outputs; first += kOutputBlock) {
    const Finish finish(call.output, shape, first);
    run_tiles<Words, false>(walk.pixels, begin * width, end * width, weights, 0, finish);
    weights += stem_block_bytes(shape);
  }
}

bool stem_supports(const ConvShape&) { return true; }

// The last pair may reach one element behind the image, where its weight is 0.
size_t stem_scratch_bytes(const ConvShape& shape, int) {
  const size_t pixels =
      static_cast<size_t>(shape.height + 2 * shape.pad) * (shape.width + 2 * shape.pad);
  return (pixels * shape.inputs + 1) * sizeof(int16_t);
}

void stem(const StemCall& call, const Parallel& parallel) {
  const ConvShape& shape = call.shape;
  int16_t* const image = static_cast<int16_t*>(call.scratch);
  const int height = shape.height + 2 * shape.pad;
  const size_t row = static_cast<size_t>(shape.width + 2 * shape.pad) * shape.inputs;
  image[height * row] = 0;
  const size_t row_bytes = row * sizeof(int16_t);
  StemWalk walk{&call,
                image,
                row,
                {reinterpret_cast<const uint8_t*>(image),
                 shape.stride * row_bytes,
                 shape.stride * shape.inputs * sizeof(int16_t),
                 {shape.kernel_height, 1, stem_pairs(shape), row_bytes, 0},
                 shape.out_width()}};
  parallel.run(parallel.self, height, stem_pad, &walk);
  parallel.run(parallel.self, shape.out_height(), stem_rows, &walk);
}

}  // namespace
}  // namespace mbq
