// The first convolution with dot products: 4 pixels x 16 outputs.
//
// An int16 weight is 256 * high + low with a signed high and an unsigned low byte. UDOT multiplies
// pixels by low bytes, SDOT pixels minus 128 by high bytes, so that
//
//   acc = sum(p * low) + 256 * (sum((p - 128) * high) + 128 * sum(high)):
//
// two instructions for 16 multiply-accumulates where SMLAL takes four. Sums that leave int32 on the
// way wrap around, and the result fits again. Weights that all fit a byte take the SDOT alone.

#pragma once

#include "neondot_direct.h"
#include "stem_neon.h"

namespace mbq {
namespace {

// kBytes: weights that fit a byte, which then is the high one.
template <bool kBytes>
struct DotStem {
  using High = DotTile<true>;
  using Low = DotTile<false, true>;
  static constexpr int kPixels = High::kPixels;

  // Bytes of a kernel row, filled up with weight 0, and of all weights of 16 outputs in one half.
  static int row_bytes(const ConvShape& shape) {
    return round_up(shape.kernel_width * shape.inputs, 4);
  }
  static size_t half_bytes(const ConvShape& shape) {
    return static_cast<size_t>(shape.kernel_height) * row_bytes(shape) * 16;
  }
  static size_t block_bytes(const ConvShape& shape) {
    return kStartBytes + (kBytes ? 1 : 2) * half_bytes(shape);
  }

  static bool supports(const ConvShape& shape, const StemWeights& weights) {
    return !kBytes || fit_bytes(shape, weights);
  }

  static size_t prepared_bytes(const ConvShape& shape) {
    return round_up(shape.outputs, 16) / 16 * block_bytes(shape);
  }

  // For 16 outputs: start values of the high half, high bytes, low bytes; both in groups of
  // [16 outputs][4 elements of a kernel row].
  static void prepare(const ConvShape& shape, const StemWeights& weights, void* prepared) {
    const int present = shape.kernel_width * shape.inputs, bytes = row_bytes(shape);
    memset(prepared, 0, prepared_bytes(shape));
    for (int o = 0; o < shape.outputs; ++o) {
      uint8_t* const block = static_cast<uint8_t*>(prepared) + o / 16 * block_bytes(shape);
      uint8_t* const high = block + kStartBytes;
      [[maybe_unused]] uint8_t* const low = high + half_bytes(shape);
      int32_t sum = 0;
      for (int ky = 0; ky < shape.kernel_height; ++ky) {
        for (int i = 0; i < present; ++i) {
          const size_t row = static_cast<size_t>(o) * shape.kernel_height + ky;
          const int weight = weights.weight[row * present + i];
          const size_t at = (static_cast<size_t>(ky) * bytes + i / 4 * 4) * 16 + o % 16 * 4 + i % 4;
          const int upper = kBytes ? weight : weight >> 8;
          high[at] = static_cast<uint8_t>(upper);
          if constexpr (!kBytes) low[at] = static_cast<uint8_t>(weight);
          sum += upper;
        }
      }
      reinterpret_cast<int32_t*>(block)[o % 16] = 128 * sum;
    }
  }

  // From the high bytes' sums to those of whole weights.
  static void add_lower(const uint8_t* const* from, const Window& window, const int8_t* low,
                        int32x4_t (&acc)[kPixels][4]) {
    const int32_t zeros[16] = {};
    int32x4_t lower[kPixels][4];
    Low::multiply(from, window, low, zeros, lower);
    for (int p = 0; p < kPixels; ++p) {
      for (int v = 0; v < 4; ++v) {
        acc[p][v] = vaddq_s32(lower[p][v], vshlq_n_s32(acc[p][v], 8));
      }
    }
  }

  static void rows(void* context, int, int begin, int end) {
    const StemWalk<uint8_t>& walk = *static_cast<const StemWalk<uint8_t>*>(context);
    const StemCall& call = *walk.call;
    const ConvShape& shape = call.shape;
    const Window window{shape.kernel_height, 1, walk.row, 0, row_bytes(shape)};
    const int out_width = shape.out_width();
    const uint8_t* block = static_cast<const uint8_t*>(call.prepared);
    for (int first = 0; first < shape.outputs; first += 16, block += block_bytes(shape)) {
      const Finish<16> finish(call.output, shape, first);
      const int8_t* const high = reinterpret_cast<const int8_t*>(block + kStartBytes);
      for (int y = begin; y < end; ++y) {
        const uint8_t* const top = walk.image + static_cast<size_t>(y) * shape.stride * walk.row;
        for (int x = 0; x < out_width; x += kPixels) {
          // The last tile of a row computes its last pixel more than once.
          const uint8_t* from[kPixels];
          for (int p = 0; p < kPixels; ++p) {
            const int wanted = x + p < out_width ? x + p : out_width - 1;
            from[p] = top + static_cast<size_t>(wanted) * shape.stride * shape.inputs;
          }
          int32x4_t acc[kPixels][4];
          High::multiply(from, window, high, reinterpret_cast<const int32_t*>(block), acc);
          if constexpr (!kBytes) add_lower(from, window, high + half_bytes(shape), acc);
          for (int p = 0; p < kPixels && x + p < out_width; ++p) finish(acc[p], y, x + p);
        }
      }
    }
  }

  static size_t scratch_bytes(const ConvShape& shape, int) { return padded_bytes<uint8_t>(shape); }

  static void run(const StemCall& call, const Parallel& parallel) {
    StemWalk<uint8_t> walk = pad_image<uint8_t>(call, parallel);
    parallel.run(parallel.self, call.shape.out_height(), rows, &walk);
  }

  static constexpr StemKernel kernel(const char* name) {
    return {name, supports, prepared_bytes, prepare, scratch_bytes, run};
  }
};

}  // namespace
}  // namespace mbq
