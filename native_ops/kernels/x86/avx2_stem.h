// The first convolution for AVX2 and AVX-VNNI: pairs of int16 pixels and weights, on the tiles of
// avx2_tile.h, or with AVX-VNNI four bytes where all weights fit them (vpmaddubsw would saturate).
// Pixels are copied once into an image with the padding pixels around, widened where weights are.

#pragma once

#include <algorithm>
#include <type_traits>

#include "avx2_tile.h"

namespace mbq {
namespace {

// With weights of type W.
template <typename W>
struct Stem {
  using Pixel = std::conditional_t<sizeof(W) == 1, uint8_t, int16_t>;
  using Operands = std::conditional_t<sizeof(W) == 1, Codes, Words>;
  static constexpr int kElements = kGroup / static_cast<int>(sizeof(W));  // of a group

  // Elements of a kernel row, which is followed by weights 0 up to a whole group.
  static int row_elements(const ConvShape& shape) { return shape.kernel_width * shape.inputs; }
  static int row_groups(const ConvShape& shape) {
    return round_up(row_elements(shape), kElements) / kElements;
  }

  static size_t block_bytes(const ConvShape& shape) {
    return static_cast<size_t>(shape.kernel_height) * row_groups(shape) * kGroupBytes;
  }

  static size_t prepared_bytes(const ConvShape& shape) {
    return round_up(shape.outputs, kOutputBlock) / kOutputBlock * block_bytes(shape);
  }

  // [block of 16 outputs][kernel row][group][16 outputs][elements]
  static void prepare(const ConvShape& shape, const StemWeights& weights, void* prepared) {
    const int present = row_elements(shape), groups = row_groups(shape);
    W* to = static_cast<W*>(prepared);
    for (int first = 0; first < shape.outputs; first += kOutputBlock) {
      for (int ky = 0; ky < shape.kernel_height; ++ky) {
        for (int group = 0; group < groups; ++group) {
          for (int o = first; o < first + kOutputBlock; ++o) {
            const size_t row = (static_cast<size_t>(o) * shape.kernel_height + ky) * present;
            for (int i = kElements * group; i < kElements * (group + 1); ++i) {
              const bool there = o < shape.outputs && i < present;
              *to++ = there ? static_cast<W>(weights.weight[row + i]) : W{0};
            }
          }
        }
      }
    }
  }

  struct Walk {
    const StemCall* call;
    Pixel* image;
    size_t row;  // elements
    Pixels pixels;
  };

  // Rows of the image with padding.
  static void pad_rows(void* context, int, int begin, int end) {
    const Walk& walk = *static_cast<const Walk*>(context);
    const ConvShape& shape = walk.call->shape;
    const auto pad = [&](Pixel* to, int pixels) {
      for (int i = 0; i < pixels; ++i) {
        for (int c = 0; c < shape.inputs; ++c) *to++ = walk.call->weights.pad_value[c];
      }
      return to;
    };
    const size_t elements = static_cast<size_t>(shape.width) * shape.inputs;
    for (int row = begin; row < end; ++row) {
      Pixel* to = walk.image + row * walk.row;
      const int y = row - shape.pad;
      if (y < 0 || y >= shape.height) {
        pad(to, shape.width + 2 * shape.pad);
        continue;
      }
      to = pad(to, shape.pad);
      const uint8_t* const from = walk.call->image + y * elements;
      size_t i = 0;
      if constexpr (sizeof(Pixel) == 2) {
        for (; i + 16 <= elements; i += 16) {
          const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(from + i));
          _mm256_storeu_si256(reinterpret_cast<__m256i*>(to + i), _mm256_cvtepu8_epi16(bytes));
        }
      }
      std::copy(from + i, from + elements, to + i);
      pad(to + elements, shape.pad);
    }
  }

  static void rows(void* context, int, int begin, int end) {
    const Walk& walk = *static_cast<const Walk*>(context);
    const StemCall& call = *walk.call;
    const ConvShape& shape = call.shape;
    const int width = shape.out_width();
    const uint8_t* weights = static_cast<const uint8_t*>(call.prepared);
    for (int first = 0; first < shape.outputs; first += kOutputBlock) {
      const Finish finish(call.output, shape, first);
      run_tiles<Operands, false>(walk.pixels, begin * width, end * width, weights, 0, finish);
      weights += block_bytes(shape);
    }
  }

  static bool supports(const ConvShape& shape, const StemWeights& weights) {
    return sizeof(W) == sizeof(int16_t) || fit_bytes(shape, weights);
  }

  // The last group may reach behind the image, where its weights are 0.
  static size_t scratch_bytes(const ConvShape& shape, int) {
    const size_t pixels =
        static_cast<size_t>(shape.height + 2 * shape.pad) * (shape.width + 2 * shape.pad);
    return (pixels * shape.inputs + kElements - 1) * sizeof(Pixel);
  }

  static void run(const StemCall& call, const Parallel& parallel) {
    const ConvShape& shape = call.shape;
    Pixel* const image = static_cast<Pixel*>(call.scratch);
    const int height = shape.height + 2 * shape.pad;
    const size_t row = static_cast<size_t>(shape.width + 2 * shape.pad) * shape.inputs;
    std::fill_n(image + height * row, kElements - 1, Pixel{0});
    const size_t row_bytes = row * sizeof(Pixel);
    Walk walk{&call,
              image,
              row,
              {reinterpret_cast<const uint8_t*>(image),
               shape.stride * row_bytes,
               shape.stride * shape.inputs * sizeof(Pixel),
               {shape.kernel_height, 1, row_groups(shape), row_bytes, 0},
               shape.out_width()}};
    parallel.run(parallel.self, height, pad_rows, &walk);
    parallel.run(parallel.self, shape.out_height(), rows, &walk);
  }

  static constexpr StemKernel kernel(const char* name) {
    return {name, supports, prepared_bytes, prepare, scratch_bytes, run};
  }
};

}  // namespace
}  // namespace mbq
