// Direct convolution of any size and stride by tiles of pixels x outputs, shared by the NEON
// instruction sets, which differ in the tile.
//
// A tile takes pixels by their addresses, so that it may span rows of the image: only the last tile
// of all is not full, and computes its last pixel more than once. Codes come straight from the
// image, whose border holds code 0. Weights are unpacked to int8 in the tile's order, by `prepare`
// or, where memory counts more, for 16 outputs at a time while running.
//
// Anonymous for the same reason as finish_neon.h.

#pragma once

#include "finish_neon.h"

namespace mbq {
namespace {

// A window of the image: rows x columns runs of contiguous bytes.
struct Window {
  int rows, columns;
  size_t row_step, column_step;
  int bytes;  // of a run, a multiple of Tile::kInputs
};

// The unpacked weights of 16 outputs: start values of their accumulators, then
// round_up(inputs, Tile::kInputs) int8 for each tap and output, in the tile's order.
inline constexpr size_t kStartBytes = 16 * sizeof(int32_t);

template <typename Tile>
size_t block_bytes(const ConvShape& shape) {
  return kStartBytes + static_cast<size_t>(shape.kernel_height) * shape.kernel_width *
                           round_up(shape.inputs, Tile::kInputs) * kOutputBlock;
}

template <typename Tile>
void unpack_block(const ConvShape& shape, const uint8_t* payload, uint8_t* to) {
  const int taps = shape.kernel_height * shape.kernel_width;
  const int present = round_up(shape.inputs, kCodesPerByte) / kCodesPerByte;
  const int padded = round_up(shape.inputs, Tile::kInputs) / kCodesPerByte;
  uint8_t* const weights = to + kStartBytes;
  const int groups = taps * padded;
  const int past = shape.inputs % kCodesPerByte;  // inputs in a last group that is not full
  const uint8x16_t three = vdupq_n_u8(3);
  int32x4_t sums[4] = {};
  for (int tap = 0, group = 0; tap < taps; ++tap) {
    for (int i = 0; i < padded; ++i, ++group) {
      int8x16x4_t inputs = {};
      if (i < present) {
        uint8x16_t bytes = vld1q_u8(payload);
        payload += kOutputBlock;
        const int count = past != 0 && i == present - 1 ? past : kCodesPerByte;
        for (int k = 0; k < count; ++k) {
          const uint8x16_t codes = vandq_u8(bytes, three);
          inputs.val[k] = vreinterpretq_s8_u8(vsubq_u8(vaddq_u8(codes, codes), three));
          bytes = vshrq_n_u8(bytes, 2);
        }
      }
      alignas(16) int8_t words[64];  // [16 outputs][4 inputs]
      vst4q_s8(words, inputs);
      for (int part = 0; part < 4; ++part) {
        sums[part] = vpadalq_s16(sums[part], vpaddlq_s8(vld1q_s8(words + 16 * part)));
      }
      for (int o = 0; o < kOutputBlock; ++o) {
        memcpy(weights + 4 * Tile::word(o, group, groups), words + 4 * o, 4);
      }
    }
  }
  for (int part = 0; part < 4; ++part) {
    vst1q_s32(reinterpret_cast<int32_t*>(to) + 4 * part, vmulq_n_s32(sums[part], Tile::kCentre));
  }
}

template <typename Tile>
struct DirectWalk {
  const ConvCall* call;
  Window window;

  static void tiles(void* context, int thread, int begin, int end) {
    const DirectWalk& walk = *static_cast<const DirectWalk*>(context);
    const ConvCall& call = *walk.call;
    const ConvShape& shape = call.shape;
    const size_t bytes = block_bytes<Tile>(shape);
    const size_t payload_bytes =
        packed_payload_bytes(shape) / (round_up(shape.outputs, kOutputBlock) / kOutputBlock);
    for (int first = 0, block = 0; first < shape.outputs; first += kOutputBlock, ++block) {
      const uint8_t* weights = static_cast<const uint8_t*>(call.prepared) + block * bytes;
      if (call.prepared == nullptr) {
        uint8_t* const own = static_cast<uint8_t*>(call.scratch) + thread * bytes;
        unpack_block<Tile>(shape, call.payload + block * payload_bytes, own);
        weights = own;
      }
      walk.block(first, weights, bytes, begin, end);
    }
  }

  // The outputs of a block stay outside, so that their weights stay in the cache.
  void block(int first, const uint8_t* weights, size_t bytes, int begin, int end) const {
    constexpr int kParts = kOutputBlock / Tile::kOutputs;
    const ConvShape& shape = call->shape;
    const int out_width = shape.out_width(), pixels = shape.out_height() * out_width;
    for (int part = 0; part < kParts; ++part) {
      const int output = first + part * Tile::kOutputs;
      if (output >= shape.outputs) return;
      const Finish<Tile::kOutputs> finish(call->output, shape, output);
      const int32_t* const start =
          reinterpret_cast<const int32_t*>(weights) + part * Tile::kOutputs;
      const int8_t* const own = reinterpret_cast<const int8_t*>(weights + kStartBytes) +
                                part * ((bytes - kStartBytes) / kParts);
      for (int tile = begin; tile < end; ++tile) {
        const uint8_t* from[Tile::kPixels];
        int y[Tile::kPixels], x[Tile::kPixels];
        for (int p = 0; p < Tile::kPixels; ++p) {
          const int wanted = tile * Tile::kPixels + p;
          const int pixel = wanted < pixels ? wanted : pixels - 1;
          y[p] = pixel / out_width;
          x[p] = pixel - y[p] * out_width;
          const ptrdiff_t top = static_cast<ptrdiff_t>(y[p]) * shape.stride - shape.pad;
          const ptrdiff_t left = static_cast<ptrdiff_t>(x[p]) * shape.stride - shape.pad;
          from[p] = call->input.origin + top * static_cast<ptrdiff_t>(call->input.row) +
                    left * static_cast<ptrdiff_t>(call->input.pixel);
        }
        int32x4_t acc[Tile::kPixels][Tile::kOutputs / 4];
        Tile::multiply(from, window, own, start, acc);
        const int left = pixels - tile * Tile::kPixels;
        for (int p = 0; p < Tile::kPixels && p < left; ++p) finish(acc[p], y[p], x[p]);
      }
    }
  }
};

template <typename Tile, bool kPrepared>
struct Direct {
  static bool supports(const ConvShape&, int highest) { return highest <= Tile::kHighest; }

  static size_t prepared_bytes(const ConvShape& shape) {
    return kPrepared
               ? round_up(shape.outputs, kOutputBlock) / kOutputBlock * block_bytes<Tile>(shape)
               : 0;
  }

  static void prepare(const ConvShape& shape, const uint8_t* payload, void* prepared) {
    if (!kPrepared) return;
    const int blocks = round_up(shape.outputs, kOutputBlock) / kOutputBlock;
    const size_t packed = packed_payload_bytes(shape) / blocks;
    for (int block = 0; block < blocks; ++block) {
      unpack_block<Tile>(shape, payload + block * packed,
                         static_cast<uint8_t*>(prepared) + block * block_bytes<Tile>(shape));
    }
  }

  static size_t scratch_bytes(const ConvShape& shape, int threads) {
    return kPrepared ? 0 : threads * block_bytes<Tile>(shape);
  }

  static void run(const ConvCall& call, const Parallel& parallel) {
    const ConvShape& shape = call.shape;
    const size_t pixel = call.input.pixel;
    Window window{shape.kernel_height, shape.kernel_width, call.input.row, pixel,
                  round_up(shape.inputs, Tile::kInputs)};
    // The taps of a row lie side by side where pixels hold nothing else.
    if (pixel == static_cast<size_t>(window.bytes)) {
      window.bytes *= shape.kernel_width;
      window.columns = 1;
    }
    DirectWalk<Tile> walk{&call, window};
    const int pixels = shape.out_height() * shape.out_width();
    parallel.run(parallel.self, (pixels + Tile::kPixels - 1) / Tile::kPixels,
                 DirectWalk<Tile>::tiles, &walk);
  }

  static constexpr ConvKernel kernel(const char* name) {
    return {name, supports, prepared_bytes, prepare, scratch_bytes, run};
  }
};

}  // namespace
}  // namespace mbq
