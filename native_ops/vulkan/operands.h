// What the shaders of a level read and write, on the device.

#pragma once

#include "device.h"
#include "dispatch.h"

namespace mbq::vulkan {

struct Operands {
  std::unique_ptr<Buffer> arena;
  std::unique_ptr<Buffer> image;   // the host's, copied into the arena at the begin of a frame
  std::unique_ptr<Buffer> logits;  // the host's too
  std::unique_ptr<Buffer> floats;  // the level's scales and biases, then the head's bias
  std::vector<Part> constants;     // for each key of the plan that is weights; others are empty
  std::vector<Part> transformed;   // for each layer of F(2x2,3x3)
  Shape shape;
  size_t image_bytes, logits_bytes;

  const Part& weights_of(const Dispatch& dispatch) const {
    return dispatch.transformed ? transformed[dispatch.layer] : constants[dispatch.weight];
  }
};

// Allocates and uploads. Throws DeviceError.
Operands make_operands(Device& device, const Plan& plan,
                       const std::vector<Engine::Constant>& constants);

}  // namespace mbq::vulkan
