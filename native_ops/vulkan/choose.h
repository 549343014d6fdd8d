// How the convolutions of a level are computed: measured on the device, once for each shape.

#pragma once

#include "operands.h"

namespace mbq::vulkan {

// Sets the variant of every convolution, and on the device the transformed weights of those that
// need some: by measuring with the device's clock, or as EDGE_VULKAN_CONV says (direct, f2x2, or
// the name of a variant). low_memory: nothing is transformed. Throws DeviceError.
void choose_variants(Device& device, const Plan& plan, bool low_memory, Operands& operands);

}  // namespace mbq::vulkan
