// What command buffers of levels consist of, whether frames or measurements.

#pragma once

#include <array>
#include <vector>

#include "dispatch.h"
#include "operands.h"

namespace mbq::vulkan {

// Which dispatches have to wait for those before them: a barrier makes everything before it
// visible, so only what came since the last one counts. Layers of different branches, and a block's
// first convolution and its shortcut, run at the same time.
class Hazards {
 public:
  bool must_wait(const Dispatch& dispatch);

 private:
  std::vector<Range> read_, written_;
};

// The buffers of dispatches, one descriptor set for each.
class Bindings {
 public:
  using Buffers = std::array<VkDescriptorBufferInfo, kBindings>;

  // Throws DeviceError.
  Bindings(Device& device, const std::vector<Buffers>& wanted);
  ~Bindings();
  Bindings(const Bindings&) = delete;
  Bindings& operator=(const Bindings&) = delete;

  const VkDescriptorSet& operator[](size_t index) const { return sets_[index]; }

 private:
  Device& device_;
  VkDescriptorPool pool_ = VK_NULL_HANDLE;
  std::vector<VkDescriptorSet> sets_;
};

// What a dispatch of the level binds.
Bindings::Buffers buffers_of(const Operands& operands, const Dispatch& dispatch);

// The device's clock, if it has one.
class Clock {
 public:
  // count: of times that are kept. Throws DeviceError.
  Clock(Device& device, uint32_t count);
  ~Clock();
  Clock(const Clock&) = delete;
  Clock& operator=(const Clock&) = delete;

  explicit operator bool() const { return pool_ != VK_NULL_HANDLE; }
  uint32_t count() const { return static_cast<uint32_t>(ticks_.size()); }

  // Recorded: forget all times; note the time when everything before has come past a stage.
  void reset(VkCommandBuffer commands) const;
  void note(VkCommandBuffer commands, VkPipelineStageFlagBits stage, uint32_t index) const;

  // Fetches times that were noted; false where the driver does not have them.
  bool read(uint32_t first, uint32_t count);
  // Between two that were read.
  double microseconds(uint32_t from, uint32_t to) const;

 private:
  Device& device_;
  VkQueryPool pool_ = VK_NULL_HANDLE;
  std::vector<uint64_t> ticks_;
};

inline constexpr VkAccessFlags kShaderReadWrite =
    VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT;

void record_barrier(const Device& device, VkCommandBuffer commands, VkPipelineStageFlags after,
                    VkAccessFlags done, VkPipelineStageFlags before, VkAccessFlags coming);

// Between dispatches of which the later ones use what the earlier ones wrote.
void record_wait(const Device& device, VkCommandBuffer commands);

void record_dispatch(Device& device, VkCommandBuffer commands, const Dispatch& dispatch,
                     VkPipeline pipeline, const VkDescriptorSet& set);

}  // namespace mbq::vulkan
