// What Python sees of native_ops/vulkan.

#pragma once

#include <nanobind/nanobind.h>

namespace mbq {

// Adds DeviceError and the descriptions of devices, statistics, dispatches, plans by themselves and
// shaders to the module.
void bind_vulkan(nanobind::module_& module);

}  // namespace mbq
