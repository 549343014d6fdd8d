// Geometry of the integer network's layers, for one image; what the reference operators
// (reference.h) and the fast layer kernels (layers.h) have in common.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace mbq {

// Outputs whose weight codes lie side by side in the packed payload.
inline constexpr int kOutputBlock = 16;
// Codes in one byte of the payload: consecutive inputs of one output.
inline constexpr int kCodesPerByte = 4;
// Side of a depthwise kernel. Its sums then fit int16.
inline constexpr int kMaxDepthwiseKernel = 5;
static_assert(kMaxDepthwiseKernel * kMaxDepthwiseKernel * 3 * 255 <= 32767);

constexpr int round_up(int value, int multiple) {
  return (value + multiple - 1) / multiple * multiple;
}

// Geometry of a convolution over one image, in elements.
struct ConvShape {
  int height, width, inputs;
  int outputs, kernel_height, kernel_width;
  int stride, pad;

  constexpr int out_height() const { return (height + 2 * pad - kernel_height) / stride + 1; }
  constexpr int out_width() const { return (width + 2 * pad - kernel_width) / stride + 1; }
};

// Splits `count` independent pieces of work over threads. `run` returns when all of them are done.
// A task learns which of the threads 0 .. threads - 1 it is on, to have scratch of its own.
struct Parallel {
  using Task = void (*)(void* context, int thread, int begin, int end);
  void (*run)(void* self, int count, Task task, void* context);
  void* self;
  int threads;
};

// Runs all pieces on the calling thread.
inline const Parallel& serial() {
  static constexpr Parallel alone{
      [](void*, int count, Parallel::Task task, void* context) { task(context, 0, 0, count); },
      nullptr, 1};
  return alone;
}

// The first convolution: 16-bit weights on pixels.
struct StemWeights {
  const int16_t* weight;     // [outputs, kernel_height, kernel_width, inputs]
  const uint8_t* pad_value;  // [inputs], the pixel outside the image
};

// Whether every weight of a stem fits int8.
inline bool fit_bytes(const ConvShape& shape, const StemWeights& weights) {
  const int16_t* const end = weights.weight + static_cast<size_t>(shape.outputs) *
                                                  shape.kernel_height * shape.kernel_width *
                                                  shape.inputs;
  return std::all_of(weights.weight, end, [](int16_t w) { return w >= -128 && w <= 127; });
}

// Packed weights of a block of outputs, and of all of them.
constexpr size_t packed_block_bytes(const ConvShape& shape) {
  return static_cast<size_t>(kOutputBlock) * shape.kernel_height * shape.kernel_width *
         (round_up(shape.inputs, kCodesPerByte) / kCodesPerByte);
}
constexpr size_t packed_payload_bytes(const ConvShape& shape) {
  return round_up(shape.outputs, kOutputBlock) / kOutputBlock * packed_block_bytes(shape);
}

constexpr size_t depthwise_payload_bytes(const ConvShape& shape) {
  return static_cast<size_t>(round_up(shape.outputs, kOutputBlock)) *
         (round_up(shape.kernel_height * shape.kernel_width, kCodesPerByte) / kCodesPerByte);
}

// Windows of a max pool over one image of `channels`; what lies outside the image never wins.
struct PoolShape {
  int height, width, channels;
  int kernel, stride, pad;  // 2 * pad <= kernel, so that every window holds a pixel

  constexpr int out_height() const { return (height + 2 * pad - kernel) / stride + 1; }
  constexpr int out_width() const { return (width + 2 * pad - kernel) / stride + 1; }
};

}  // namespace mbq
