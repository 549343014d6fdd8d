// The operators of the integer network on raw pointers, for one image.
//
// Activations are codes (uint8) or the residual stream (float32), both in logical [H, W, C] order.
// Weights are 2-bit codes q in 0..3 that stand for 2q - 3; accumulators are exact int32. After an
// accumulator comes float32 in one fixed order, and each step rounds on its own (no fused
// multiply-add): converted to nearest even, times scale, plus bias, plus the residual, ReLU. Codes
// are rounded half to even. Every instruction set gives the same bits.
//
// Nothing here allocates, starts a thread or keeps state.

#pragma once

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
// Channels that the widened weights of a depthwise convolution are filled up to.
inline constexpr int kDepthwiseBlock = 32;

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

// What a convolution reads; exactly one of `codes` and `stream` is set.
struct ConvInput {
  const uint8_t* codes;

  // The stream, quantised on the way in: clip(rint(x * scale + offset), 0, highest); what is not a
  // number becomes code 0.
  const float* stream;
  float scale, offset;
  int highest;
};

// What becomes of z = acc * scale + bias; exactly one of `codes` and `stream` is set.
struct ConvOutput {
  const float* scale;  // [outputs]
  const float* bias;   // [outputs]

  uint8_t* codes;  // clip(rint(z), lowest, highest)
  int lowest, highest;

  float* stream;          // z + residual, then ReLU
  const float* residual;  // as stream, or null
  bool relu;
};

// The first convolution: 16-bit weights on pixels.
struct StemWeights {
  const int16_t* weight;     // [outputs, kernel_height, kernel_width, inputs]
  const uint8_t* pad_value;  // [inputs], the pixel outside the image
};

// The kernels of one instruction set.
struct KernelSet {
  const char* name;

  // payload: packed weight codes, for each block of 16 outputs and each group of 4 inputs, counted
  // over (ky, kx, c) with c fastest and padded to 4, one byte for each output.
  // scratch: conv_scratch_bytes(shape) bytes, aligned to 64.
  void (*conv)(const ConvShape& shape, const ConvInput& input, const uint8_t* payload,
               const ConvOutput& output, void* scratch, const Parallel& parallel);

  // A filter for each channel: shape.inputs is shape.outputs, the kernel a square of at most
  // kMaxDepthwiseKernel.
  // payload: for each block of 16 channels and each group of 4 taps, counted over (ky, kx), one
  // byte for each channel. scratch: depthwise_scratch_bytes(shape) bytes, aligned to 64.
  void (*depthwise)(const ConvShape& shape, const ConvInput& input, const uint8_t* payload,
                    const ConvOutput& output, void* scratch, const Parallel& parallel);

  // output.stream is written with ReLU; scratch: stem_scratch_bytes(shape) bytes, aligned to 64.
  void (*stem)(const ConvShape& shape, const uint8_t* image, const StemWeights& weights,
               const ConvOutput& output, void* scratch, const Parallel& parallel);
};

constexpr size_t packed_payload_bytes(const ConvShape& shape) {
  return static_cast<size_t>(round_up(shape.outputs, kOutputBlock)) * shape.kernel_height *
         shape.kernel_width * (round_up(shape.inputs, kCodesPerByte) / kCodesPerByte);
}

constexpr size_t depthwise_payload_bytes(const ConvShape& shape) {
  return static_cast<size_t>(round_up(shape.outputs, kOutputBlock)) *
         (round_up(shape.kernel_height * shape.kernel_width, kCodesPerByte) / kCodesPerByte);
}

// Enough for every instruction set.
size_t conv_scratch_bytes(const ConvShape& shape);
size_t depthwise_scratch_bytes(const ConvShape& shape);
size_t stem_scratch_bytes(const ConvShape& shape);

// Windows of a max pool over one image of `channels`; what lies outside the image never wins.
struct PoolShape {
  int height, width, channels;
  int kernel, stride, pad;  // 2 * pad <= kernel, so that every window holds a pixel

  constexpr int out_height() const { return (height + 2 * pad - kernel) / stride + 1; }
  constexpr int out_width() const { return (width + 2 * pad - kernel) / stride + 1; }
};

// Of codes, and of the stream without values that are not numbers.
void max_pool(const PoolShape& shape, const uint8_t* input, uint8_t* output,
              const Parallel& parallel);
void max_pool(const PoolShape& shape, const float* input, float* output, const Parallel& parallel);

// The first `to` of each pixel's `from` channels, with zeros after them where it has fewer.
void fit_channels(const float* input, size_t pixels, int from, int to, float* output);

// Mean over pixels of each stream, mean (or sum) over streams, classifier. Sums run in a fixed
// order. streams: `count` pointers to [pixels, channels]; pooled: scratch of 2 * channels floats.
void head(const float* const* streams, int count, int pixels, int channels, const float* weight,
          const float* bias, int classes, bool mean, float* pooled, float* logits);

// Instruction sets that were built and that this CPU runs, slowest first. Null after the last.
const KernelSet* const* available_kernels();

// The set of that name among the available ones, or null.
const KernelSet* find_kernels(const char* name);

// The fastest available set, or the one that EDGE_NATIVE_ISA names. Read once; if it names none
// that is available, null: an override that is ignored would spoil a measurement.
const KernelSet* selected_kernels();

// One for each translation unit; null where the compiler does not target that instruction set.
const KernelSet* reference_kernels();
const KernelSet* avx2_kernels();
const KernelSet* avx512vnni_kernels();

}  // namespace mbq
