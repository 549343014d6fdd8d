// Compute pipelines, made once for each shader and its specialisation constants.

#pragma once

#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "loader.h"

namespace mbq::vulkan {

class Device;

// In the order of shader_code().
enum class Shader : uint32_t {
  kStem,
  kConv,
  kConvPacked,
  kWinograd,
  kWinogradPacked,
  kWinogradWeights,
  kDepthwise,
  kStream,
  kPool,
  kAverage,
  kClassify,
};

// Bindings of every shader: arena, weights, floats, logits (shaders/level.glsl).
inline constexpr uint32_t kBindings = 4;
// Push constants that every device has.
inline constexpr uint32_t kPushBytes = 128;

class Pipelines {
 public:
  // cache_name: of the file that keeps what the driver compiled, in the user's cache folder.
  Pipelines(Device& device, const std::string& cache_name);
  ~Pipelines();
  Pipelines(const Pipelines&) = delete;
  Pipelines& operator=(const Pipelines&) = delete;

  VkDescriptorSetLayout set_layout() const { return set_layout_; }
  VkPipelineLayout layout() const { return layout_; }

  // constants: for the shader's constant_id 0, 1, ... Throws DeviceError.
  VkPipeline get(Shader shader, const std::vector<uint32_t>& constants);

  // Writes the cache file if pipelines came since it was read. A cache that cannot be written is
  // none.
  void keep();

 private:
  void release();
  VkPipeline compile(Shader shader, const std::vector<uint32_t>& constants);

  Device& device_;
  std::string path_;
  VkDescriptorSetLayout set_layout_ = VK_NULL_HANDLE;
  VkPipelineLayout layout_ = VK_NULL_HANDLE;
  VkPipelineCache cache_ = VK_NULL_HANDLE;
  std::mutex mutex_;
  std::map<std::pair<Shader, std::vector<uint32_t>>, VkPipeline> pipelines_;
  bool changed_ = false;
};

}  // namespace mbq::vulkan
