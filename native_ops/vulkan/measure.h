// How long layers take on the device, by its clock.

#pragma once

#include <vector>

#include "operands.h"

namespace mbq::vulkan {

struct Trial {
  std::vector<int> layers;  // of the plan, which run side by side
  std::vector<Variant> variants;
  std::vector<double> least;  // result, for each variant: microseconds; infinite without a time
};

// Every pass runs one variant of every trial, so that between two runs of a layer there are all
// others, as in a frame, and what disturbs the device disturbs all variants. Each counts with its
// shortest time. The arena holds whatever it holds: no shader's time depends on it. Throws
// DeviceError.
void measure(Device& device, const Plan& plan, const Operands& operands,
             std::vector<Trial>& trials);

}  // namespace mbq::vulkan
