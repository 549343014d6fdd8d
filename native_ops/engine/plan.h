// The plan of one level, as export/plan.py writes it: values with their places in an arena, layers
// in execution order, keys of constants that levels share, and the level's own scales and biases.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "../kernels/layers.h"

namespace mbq {

enum class ValueKind : int32_t { kStream, kCodes, kImage, kLogits };

struct PlanValue {
  ValueKind kind;
  int height, width, channels, border;
  size_t offset;

  // Of codes: bytes between neighbouring pixels and rows.
  size_t pixel() const { return static_cast<size_t>(round_up(channels, kCodesPerByte)); }
  size_t row() const { return (width + 2 * static_cast<size_t>(border)) * pixel(); }
  // In the arena, with what kernels may read behind codes; 0 for the method's input and output.
  size_t bytes() const;
};

enum class LayerKind : int32_t { kStem, kConv, kDepthwise, kFork, kPoolCodes, kHead };

inline constexpr int kNone = -1;

struct PlanCodes {
  int value, lowest, highest;
  float scale, offset;
};

// Field by field as in the file.
struct PlanLayer {
  LayerKind kind;
  int branch;  // from 1; 0: of no single branch
  int input, residual, stream;
  int kernel_height, kernel_width, stride, pad, outputs;
  int highest;  // of the codes that a convolution reads
  int flags;
  int weight, second, affine;  // index of a key, of a key, of a float; or kNone
  int pool_kernel, pool_stride, pool_pad;
  int first_input, inputs, code_outputs, reserved[3];
  PlanCodes codes[kMaxCodeOutputs];

  bool relu() const { return flags & 1; }
  bool direct() const { return flags & 2; }
  bool mean() const { return flags & 4; }
};

struct Plan {
  std::vector<PlanValue> values;
  std::vector<PlanLayer> layers;
  std::vector<std::string> keys;
  std::vector<int> lists;
  std::vector<float> floats;
  size_t arena_bytes;

  // Reads and checks every index, size and place, since the bytes come from a file.
  // Throws std::runtime_error.
  static Plan decode(const void* bytes, size_t size);

  // Geometry of a convolution or stem.
  ConvShape shape(const PlanLayer& layer) const;

  // Of a layer's pool; kernel 0 where it has none.
  PoolShape pool(const PlanLayer& layer) const;
};

}  // namespace mbq
