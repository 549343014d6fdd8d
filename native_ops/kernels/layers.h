// The layers of the integer network as the delegate runs them, on raw pointers, for one image.
//
// Activations are codes (uint8) or the residual stream (float32), channels last. Weights are 2-bit
// codes q in 0..3 that stand for 2q - 3; accumulators are exact int32. After an accumulator comes
// float32 in one fixed order, and each step rounds on its own (no fused multiply-add): converted to
// nearest even, times scale, plus bias, plus the residual, ReLU, then for each code output times
// its scale, plus its offset, rounded half to even and clipped. Every kernel of every instruction
// set gives the same bits.
//
// Kernels allocate nothing, start no thread and keep no state. An instruction set is a table of
// them (LayerKernels), filled with what differs between them: data, not branches.

#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels.h"

namespace mbq {

// One image of codes with a border around it. Pixel (y, x) is at origin + y * row + x * pixel; a
// pixel's codes are contiguous, and pixel is a multiple of 4 that is at least the channels. The
// border of `border` pixels on every side and the bytes between channels and pixel hold code 0.
//
// Reading is allowed from the border's first byte up to kCodeSlackRows rows and kCodeSlackBytes
// behind its last byte, so that tiles may cover more than the image; what lies there has no
// meaning.
struct CodeImage {
  uint8_t* origin;
  size_t row, pixel;  // bytes
  int border;
};
inline constexpr int kCodeSlackRows = 3;
inline constexpr size_t kCodeSlackBytes = 320;

// One tensor of codes that a layer makes of its float32 result x: clip(rint(x * scale + offset),
// lowest, highest); what is not a number becomes the lowest. Kernels write the image, the delegate
// has cleared the border.
struct CodeOutput {
  CodeImage image;
  float scale, offset;
  int lowest, highest;
};
inline constexpr int kMaxCodeOutputs = 2;

// What becomes of the accumulators of a convolution.
struct LayerOutput {
  const float* scale;  // [outputs]
  const float* bias;   // [outputs]: z = acc * scale + bias

  // Codes straight from z: clip(rint(z), lowest, highest) of codes[0], without its scale and
  // offset. Nothing else is written then.
  bool direct;

  const float* residual;  // [out_height, out_width, outputs], or null: added to z
  bool relu;              // then max(z, 0)
  // [out_height, out_width, outputs], or null where only codes are read on. May be the residual
  // itself: a kernel reads each of its numbers once, and before it writes that one.
  float* stream;
  int code_outputs;  // 0..kMaxCodeOutputs
  CodeOutput codes[kMaxCodeOutputs];
};

// A convolution of codes. `input.border` is at least shape.pad.
struct ConvCall {
  ConvShape shape;
  CodeImage input;         // only read
  const uint8_t* payload;  // packed weight codes, in the order that reference.h describes
  const void* prepared;    // what `prepare` made of them, aligned to 64
  LayerOutput output;
  void* scratch;  // scratch_bytes(shape, threads) bytes, aligned to 64
};

// One algorithm on one instruction set.
//
// Named after operands, layer, algorithm, tile (pixels or Winograd tiles x outputs) and instruction
// set, as in "u8s2_conv3x3s1_f2x2_7x32__avx512vnni".
struct ConvKernel {
  const char* name;

  // Whether it runs this shape, exactly for every weight and all codes 0..highest.
  bool (*supports)(const ConvShape& shape, int highest);

  // What `prepare` writes; 0 for a kernel that unpacks the payload on the fly, whose calls have a
  // null `prepared`.
  size_t (*prepared_bytes)(const ConvShape& shape);
  void (*prepare)(const ConvShape& shape, const uint8_t* payload, void* prepared);

  size_t (*scratch_bytes)(const ConvShape& shape, int threads);
  void (*run)(const ConvCall& call, const Parallel& parallel);
};

// A float32 stream [height, width, channels] turned into codes, and perhaps into a stream of its
// first `kept` channels (zeros after them where it has fewer): what a block reads.
struct StreamCall {
  int height, width, channels;
  const float* input;
  PoolShape pool;  // pool.kernel 0: none; else the maximum over its windows comes first
  int kept;        // channels of every output
  float* stream;   // or null
  int code_outputs;
  CodeOutput codes[kMaxCodeOutputs];
};

// The first convolution: pixels uint8 [height, width, inputs] without a border, weights int16.
// Accumulators fit int32; the delegate checks the weights. output.direct is false.
struct StemCall {
  ConvShape shape;
  const uint8_t* image;
  StemWeights weights;
  const void* prepared;
  LayerOutput output;
  void* scratch;
};

//
// Of a list the first that supports shape and weights is taken.
struct StemKernel {
  const char* name;
  bool (*supports)(const ConvShape& shape, const StemWeights& weights);
  size_t (*prepared_bytes)(const ConvShape& shape);
  void (*prepare)(const ConvShape& shape, const StemWeights& weights, void* prepared);
  size_t (*scratch_bytes)(const ConvShape& shape, int threads);
  void (*run)(const StemCall& call, const Parallel& parallel);

  // Where it can: a stem with ReLU whose stream only a max pool reads, and that pool, without
  // writing the stream. Of call.output only scale and bias count; after.input is not read.
  bool (*pools)(const ConvShape& shape, const PoolShape& pool) = nullptr;
  size_t (*pooled_scratch_bytes)(const ConvShape& shape, const PoolShape& pool,
                                 int threads) = nullptr;
  void (*run_pooled)(const StemCall& call, const StreamCall& after,
                     const Parallel& parallel) = nullptr;
};

// Global average pool of each stream, join, classifier; as mbq::head, whose order of additions it
// has. pooled: scratch of 2 * channels floats.
struct HeadCall {
  const float* const* streams;
  int count, pixels, channels;
  const float* weight;
  const float* bias;
  int classes;
  bool mean;
  float* pooled;
  float* logits;
};

// The kernels of one instruction set. Lists end with null. The delegate measures those that support
// a shape and takes the fastest; the last of each list supports every shape.
struct LayerKernels {
  const char* name;
  const ConvKernel* const* conv;
  const ConvKernel* const* depthwise;
  const StemKernel* const* stem;
  void (*stream)(const StreamCall& call, const Parallel& parallel);
  void (*pool_codes)(const PoolShape& shape, const CodeImage& input, const CodeImage& output,
                     const Parallel& parallel);
  void (*head)(const HeadCall& call, const Parallel& parallel);
};

// Instruction sets that were built and that this CPU runs, slowest first. Null after the last.
const LayerKernels* const* available_layers();

// The table of that name among the available ones, or null.
const LayerKernels* find_layers(const char* name);

// The fastest available table, or the one that EDGE_NATIVE_ISA names. Read once; if it names none
// that is available, null: an override that is ignored would spoil a measurement.
const LayerKernels* selected_layers();

// One for each instruction set; null where the compiler does not target it.
const LayerKernels* portable_layers();
const LayerKernels* avx2_layers();
const LayerKernels* avxvnni_layers();
const LayerKernels* avx512vnni_layers();
const LayerKernels* avx512vbmi_layers();
const LayerKernels* neon_layers();
const LayerKernels* neondot_layers();
const LayerKernels* neoni8mm_layers();

}  // namespace mbq
