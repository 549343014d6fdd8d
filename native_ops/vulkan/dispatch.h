// A layer of the plan as dispatches: which shader, how many workgroups, with which numbers. Pure
// arithmetic, nothing of Vulkan happens here.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "../engine/plan.h"
#include "pipelines.h"
#include "variants.h"

namespace mbq::vulkan {

// Push constants of all layers but the head, as in shaders/layer.glsl.
struct CodeNumbers {
  uint32_t origin, row, pixel;
  float scale, offset;
  uint32_t limits;
};
struct LayerNumbers {
  uint32_t input_origin, input_row, input_pixel;
  uint32_t height, width, channels;
  uint32_t out_height, out_width, outputs;
  uint32_t pad;
  uint32_t residual, stream;
  uint32_t affine;
  uint32_t flags, code_outputs;
  uint32_t pool_kernel, pool_stride;
  uint32_t highest;
  uint32_t pad_value;
  CodeNumbers codes[kMaxCodeOutputs];
};
static_assert(sizeof(LayerNumbers) == 31 * 4 && sizeof(LayerNumbers) <= kPushBytes);

// Those of the head, as in shaders/head.glsl.
inline constexpr int kMaxStreams = 16;
struct HeadNumbers {
  uint32_t streams[kMaxStreams];
  uint32_t count, pixels, channels, classes;
  uint32_t pooled, bias;
  float by_pixels, by_streams;
};
static_assert(sizeof(HeadNumbers) == 24 * 4 && sizeof(HeadNumbers) <= kPushBytes);

// Bytes of the arena.
struct Range {
  size_t begin, end;
};

struct Dispatch {
  Shader shader;
  std::vector<uint32_t> constants;  // of the specialisation
  uint32_t groups[2];
  int weight;                    // key of the plan, or kNone
  bool transformed;              // the weights of F(2x2,3x3), not the packed ones
  int layer;                     // index in the plan
  std::vector<uint8_t> numbers;  // push constants
  std::vector<Range> reads, writes;
  DispatchSize size;  // `waits` is not known here
};

// What the shaders' shapes depend on besides the plan.
struct Shape {
  bool packed_product;
  const VkPhysicalDeviceLimits* limits;
  size_t pooled;                    // byte of the arena where the head keeps its averages
  size_t image;                     // byte of the arena
  std::vector<size_t> bias;         // for each layer: where in the floats a head's bias begins
  std::vector<uint32_t> pad_value;  // for each layer: a stem's
  std::vector<Variant> variants;    // for each layer: a convolution's
  std::vector<std::string> chosen;  // for each layer: why that variant
};

// In the plan's order. Throws DeviceError for a layer that the device's limits do not allow.
std::vector<Dispatch> dispatches_of(const Plan& plan, const Shape& shape);

// A convolution of the plan, by this variant. Throws likewise.
Dispatch dispatch_of(const Plan& plan, const Shape& shape, int layer, const Variant& variant);

}  // namespace mbq::vulkan
