// A libvulkan.so.1 that breaks: everything goes to the real one (VULKAN_BEHIND is its path) but
// what VULKAN_FAULT names, so that tests see what a program does on devices that nobody has at
// hand.
//
//   lost:N      the N-th submit finds the device lost
//   hang:N      the N-th wait for a fence finds no answer in time
//   memory:N    the N-th allocation and all later ones find no device memory
//   tight:N     only the N-th allocation finds none
//   old         devices have Vulkan 1.0
//   drawing     devices do not compute
//   small       devices bind buffers of 1 KB
//   clockless   queues have no clock
//   timeless    the clock never has times ready; single ones are left alone
//   sixth:N     of six readings of the clock in turn those of number N (0 to 5) say that hardly any
//   time
//               has passed, others that much has; readings of single times are left alone
//   unreset     fences are not reset: a mistake that validation layers have to find
//
// With VULKAN_GPU set, devices say that they are no software.
//
//   g++ -shared -fPIC -o libvulkan.so.1 vulkan_faults.cpp -ldl

#include <dlfcn.h>

#include <atomic>
#include <cstdlib>
#include <cstring>
#include <string>

#define VK_NO_PROTOTYPES
#include <vulkan/vulkan_core.h>

namespace {

PFN_vkGetInstanceProcAddr real_instance() {
  static const auto found = reinterpret_cast<PFN_vkGetInstanceProcAddr>(
      dlsym(dlopen(std::getenv("VULKAN_BEHIND"), RTLD_NOW | RTLD_LOCAL), "vkGetInstanceProcAddr"));
  return found;
}

// Whether this is the call that breaks: "name" always, "name:N" the N-th time and ever after.
bool breaks(const char* name, std::atomic<int>& calls) {
  const char* const fault = std::getenv("VULKAN_FAULT");
  const size_t length = std::strlen(name);
  if (fault == nullptr || std::strncmp(fault, name, length) != 0) return false;
  return fault[length] != ':' || ++calls >= std::atoi(fault + length + 1);
}

// Whether it is the one call that breaks: "name:N" the N-th time.
bool breaks_once(const char* name, std::atomic<int>& calls) {
  const char* const fault = std::getenv("VULKAN_FAULT");
  const size_t length = std::strlen(name);
  return fault != nullptr && std::strncmp(fault, name, length) == 0 &&
         ++calls == std::atoi(fault + length + 1);
}

std::atomic<int> submits, waits, allocations, resets, readings, others;

// Of the device that was opened last; tests open one.
PFN_vkGetDeviceProcAddr real_device_addr;
VkDevice last_device;
VkInstance last_instance;

template <typename F>
F device_function(const char* name) {
  return reinterpret_cast<F>(real_device_addr(last_device, name));
}
template <typename F>
F instance_function(const char* name) {
  return reinterpret_cast<F>(real_instance()(last_instance, name));
}

VKAPI_ATTR VkResult VKAPI_CALL submit(VkQueue queue, uint32_t count, const VkSubmitInfo* info,
                                      VkFence fence) {
  if (breaks("lost", submits)) return VK_ERROR_DEVICE_LOST;
  return device_function<PFN_vkQueueSubmit>("vkQueueSubmit")(queue, count, info, fence);
}

VKAPI_ATTR VkResult VKAPI_CALL wait(VkDevice device, uint32_t count, const VkFence* fences,
                                    VkBool32 all, uint64_t timeout) {
  if (breaks("hang", waits)) return VK_TIMEOUT;
  return device_function<PFN_vkWaitForFences>("vkWaitForFences")(device, count, fences, all,
                                                                 timeout);
}

VKAPI_ATTR VkResult VKAPI_CALL reset(VkDevice device, uint32_t count, const VkFence* fences) {
  if (breaks("unreset", resets)) return VK_SUCCESS;
  return device_function<PFN_vkResetFences>("vkResetFences")(device, count, fences);
}

VKAPI_ATTR VkResult VKAPI_CALL allocate(VkDevice device, const VkMemoryAllocateInfo* info,
                                        const VkAllocationCallbacks* callbacks,
                                        VkDeviceMemory* memory) {
  if (breaks("memory", allocations) || breaks_once("tight", allocations)) {
    return VK_ERROR_OUT_OF_DEVICE_MEMORY;
  }
  return device_function<PFN_vkAllocateMemory>("vkAllocateMemory")(device, info, callbacks, memory);
}

VKAPI_ATTR VkResult VKAPI_CALL read_clock(VkDevice device, VkQueryPool pool, uint32_t first,
                                          uint32_t count, size_t size, void* data,
                                          VkDeviceSize stride, VkQueryResultFlags flags) {
  const VkResult result = device_function<PFN_vkGetQueryPoolResults>("vkGetQueryPoolResults")(
      device, pool, first, count, size, data, stride, flags);
  const char* const fault = std::getenv("VULKAN_FAULT");
  if (count > 1 && fault != nullptr && std::strcmp(fault, "timeless") == 0) return VK_NOT_READY;
  if (count > 1 && fault != nullptr && std::strncmp(fault, "sixth:", 6) == 0) {
    const bool fast = readings++ % 6 == std::atoi(fault + 6);
    auto* const ticks = static_cast<uint64_t*>(data);
    for (uint32_t i = 0; i < count; ++i) ticks[i] = i * (fast ? 10u : 1000u);
  }
  return result;
}

VKAPI_ATTR void VKAPI_CALL properties(VkPhysicalDevice device, VkPhysicalDeviceProperties* found) {
  instance_function<PFN_vkGetPhysicalDeviceProperties>("vkGetPhysicalDeviceProperties")(device,
                                                                                        found);
  if (std::getenv("VULKAN_GPU") != nullptr) {
    found->deviceType = VK_PHYSICAL_DEVICE_TYPE_INTEGRATED_GPU;
  }
  if (breaks("old", others)) found->apiVersion = VK_API_VERSION_1_0;
  if (breaks("small", others)) found->limits.maxStorageBufferRange = 1024;
}

VKAPI_ATTR void VKAPI_CALL queues(VkPhysicalDevice device, uint32_t* count,
                                  VkQueueFamilyProperties* found) {
  instance_function<PFN_vkGetPhysicalDeviceQueueFamilyProperties>(
      "vkGetPhysicalDeviceQueueFamilyProperties")(device, count, found);
  if (found == nullptr) return;
  for (uint32_t i = 0; i < *count; ++i) {
    if (breaks("drawing", others)) found[i].queueFlags = VK_QUEUE_GRAPHICS_BIT;
    if (breaks("clockless", others)) found[i].timestampValidBits = 0;
  }
}

struct Replacement {
  const char* name;
  PFN_vkVoidFunction function;
};

template <typename F>
PFN_vkVoidFunction erased(F function) {
  return reinterpret_cast<PFN_vkVoidFunction>(function);
}

VKAPI_ATTR PFN_vkVoidFunction VKAPI_CALL device_addr(VkDevice device, const char* name) {
  last_device = device;
  const Replacement replaced[] = {{"vkQueueSubmit", erased(submit)},
                                  {"vkWaitForFences", erased(wait)},
                                  {"vkResetFences", erased(reset)},
                                  {"vkGetQueryPoolResults", erased(read_clock)},
                                  {"vkAllocateMemory", erased(allocate)}};
  for (const Replacement& one : replaced) {
    if (std::strcmp(name, one.name) == 0) return one.function;
  }
  return real_device_addr(device, name);
}

}  // namespace

extern "C" __attribute__((visibility("default"))) PFN_vkVoidFunction
vkGetInstanceProcAddr(VkInstance instance, const char* name) {
  if (instance != VK_NULL_HANDLE) last_instance = instance;
  const Replacement replaced[] = {{"vkGetPhysicalDeviceProperties", erased(properties)},
                                  {"vkGetPhysicalDeviceQueueFamilyProperties", erased(queues)},
                                  {"vkGetDeviceProcAddr", erased(device_addr)}};
  const PFN_vkVoidFunction found = real_instance()(instance, name);
  if (std::strcmp(name, "vkGetDeviceProcAddr") == 0) {
    real_device_addr = reinterpret_cast<PFN_vkGetDeviceProcAddr>(found);
  }
  for (const Replacement& one : replaced) {
    if (std::strcmp(name, one.name) == 0) return one.function;
  }
  return found;
}
