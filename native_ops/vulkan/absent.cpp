// The functions of a build without Vulkan's headers or a compiler of shaders.

#include "vulkan.h"

namespace mbq::vulkan {
namespace {

[[noreturn]] void absent() {
  throw DeviceError(
      "this build has no Vulkan part; build it where Vulkan's headers and glslangValidator are"
      " (on Debian or Ubuntu: apt-get install libvulkan-dev glslang-tools)");
}

}  // namespace

std::vector<DeviceDescription> devices() { absent(); }

std::shared_ptr<Device> open_device(int) { absent(); }

std::unique_ptr<Level> make_level(std::shared_ptr<Device>, const Plan&,
                                  const std::vector<Engine::Constant>&, bool) {
  absent();
}

std::vector<ShaderCode> shader_code() { return {}; }

}  // namespace mbq::vulkan
