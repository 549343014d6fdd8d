// Vulkan's functions, found at run time: the library loads where there is no Vulkan.

#pragma once

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

#include "vulkan.h"

namespace mbq::vulkan {

#define MBQ_VULKAN_INSTANCE_FUNCTIONS(each)                                                     \
  each(DestroyInstance) each(EnumeratePhysicalDevices) each(EnumerateDeviceExtensionProperties) \
      each(GetPhysicalDeviceProperties) each(GetPhysicalDeviceProperties2)                      \
          each(GetPhysicalDeviceFeatures2) each(GetPhysicalDeviceMemoryProperties)              \
              each(GetPhysicalDeviceQueueFamilyProperties) each(CreateDevice)                   \
                  each(GetDeviceProcAddr)

#define MBQ_VULKAN_DEVICE_FUNCTIONS(each)                                                          \
  each(DestroyDevice) each(GetDeviceQueue) each(QueueSubmit) each(CreateBuffer) each(              \
      DestroyBuffer) each(GetBufferMemoryRequirements) each(AllocateMemory) each(FreeMemory)       \
      each(BindBufferMemory) each(MapMemory) each(CreateShaderModule) each(DestroyShaderModule)    \
          each(CreateDescriptorSetLayout) each(DestroyDescriptorSetLayout) each(                   \
              CreatePipelineLayout) each(DestroyPipelineLayout) each(CreatePipelineCache)          \
              each(DestroyPipelineCache) each(GetPipelineCacheData) each(CreateComputePipelines)   \
                  each(DestroyPipeline) each(CreateDescriptorPool) each(DestroyDescriptorPool)     \
                      each(AllocateDescriptorSets) each(UpdateDescriptorSets)                      \
                          each(CreateCommandPool) each(DestroyCommandPool)                         \
                              each(AllocateCommandBuffers) each(FreeCommandBuffers)                \
                                  each(BeginCommandBuffer) each(EndCommandBuffer)                  \
                                      each(CmdBindPipeline) each(CmdBindDescriptorSets)            \
                                          each(CmdPushConstants) each(CmdDispatch)                 \
                                              each(CmdPipelineBarrier) each(CmdCopyBuffer)         \
                                                  each(CmdResetQueryPool) each(CmdWriteTimestamp)  \
                                                      each(CreateQueryPool) each(DestroyQueryPool) \
                                                          each(GetQueryPoolResults)                \
                                                              each(CreateFence) each(DestroyFence) \
                                                                  each(ResetFences)                \
                                                                      each(WaitForFences)

#define MBQ_VULKAN_DECLARE(name) PFN_vk##name name;

struct InstanceFunctions {
  MBQ_VULKAN_INSTANCE_FUNCTIONS(MBQ_VULKAN_DECLARE)
};

struct DeviceFunctions {
  MBQ_VULKAN_DEVICE_FUNCTIONS(MBQ_VULKAN_DECLARE)
};

#undef MBQ_VULKAN_DECLARE

// Throws DeviceError where a call gave anything but success: what was asked for, and why it failed.
void require(VkResult result, const char* what);

// One for the process while anybody holds it. Throws DeviceError where there is no Vulkan 1.1.
class Instance {
 public:
  static std::shared_ptr<Instance> open();
  ~Instance();
  Instance(const Instance&) = delete;
  Instance& operator=(const Instance&) = delete;

  VkInstance handle() const { return handle_; }
  const InstanceFunctions& call() const { return call_; }

  // Throws DeviceError where there is none.
  std::vector<VkPhysicalDevice> physical_devices() const;

 private:
  Instance();

  VkInstance handle_ = VK_NULL_HANDLE;
  InstanceFunctions call_{};
};

}  // namespace mbq::vulkan
