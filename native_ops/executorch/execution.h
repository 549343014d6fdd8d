// What an operator or a delegate needs besides its arguments. ExecuTorch calls them on the thread
// that executes the method and gives operators no state, so this is per thread.

#pragma once

#include <memory>
#include <string>
#include <vector>

#include "../kernels/layers.h"

namespace mbq {

struct LayerTime;

namespace vulkan {
class Device;
class Level;
}  // namespace vulkan

struct Execution {
  const LayerKernels* layers;       // null: selected_layers()
  const Parallel* parallel;         // null: this thread alone
  bool low_memory;                  // weights stay packed; see RunContext
  std::vector<LayerTime>* profile;  // filled by the delegate, or null
  std::string error;                // of what failed last; an error code says too little

  // Where levels are made and run: null for the CPU. One that was made for a device runs on the CPU
  // too.
  std::shared_ptr<vulkan::Device> device;
  vulkan::Level* level;  // that was made last for a device
  bool device_failed;    // it was the device that failed, the CPU may go on
};

Execution& execution();

}  // namespace mbq
