// Weights of F(2x2,3x3), made on the device of the packed ones that lie there.

#pragma once

#include "operands.h"

namespace mbq::vulkan {

// Of a convolution of 3x3, the same for every level that runs it: 16 bytes where packed weights
// have 2.25, but only transformed once. Throws DeviceError.
Part transformed_weights(Device& device, const Plan& plan, int layer, const Operands& operands);

// Their size.
size_t transformed_bytes(const ConvShape& shape);

}  // namespace mbq::vulkan
