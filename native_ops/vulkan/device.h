// A device with what levels share on it: its queue, pipelines, and weights that are uploaded once.

#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <mutex>

#include "loader.h"
#include "memory.h"
#include "pipelines.h"

namespace mbq::vulkan {

// A device before it is opened.
struct Candidate {
  VkPhysicalDevice handle;
  DeviceDescription description;
  uint32_t queue_family;
  bool has_packed_product;  // whether fast or not
  VkPhysicalDeviceLimits limits;
  float timestamp_period;  // nanoseconds; 0 where the queue has no clock
  std::string cache_name;  // of driver and device
};

// In Vulkan's order. Throws DeviceError where there is none.
std::vector<Candidate> candidates(const Instance& instance);

class KnownChoices;

class Device {
 public:
  Device(std::shared_ptr<Instance> instance, const Candidate& candidate);
  ~Device();
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;

  const DeviceFunctions& call() const { return call_; }
  VkDevice handle() const { return handle_; }
  const Candidate& candidate() const { return candidate_; }
  // Which conv shader runs; see EDGE_VULKAN_PRODUCT in the implementation.
  bool packed_product() const { return packed_product_; }
  // Without one nothing can be measured.
  bool has_clock() const { return candidate_.timestamp_period > 0; }
  Pipelines& pipelines() { return *pipelines_; }
  KnownChoices& known_choices() { return *known_choices_; }
  SharedConstants& constants() { return constants_; }
  VkCommandPool command_pool() const { return command_pool_; }
  std::mutex& command_mutex() { return command_mutex_; }  // of the pool and what comes from it

  // Index of a memory type among `allowed` (bits) that has all `wanted` flags; of those the first,
  // since drivers list the best first. Throws DeviceError.
  uint32_t memory_type(uint32_t allowed, VkMemoryPropertyFlags wanted) const;

  // Runs commands and waits for them; returns microseconds of waiting. Throws DeviceError if the
  // device is lost or does not answer, and from then on at once.
  double run(VkCommandBuffer commands, VkFence fence);

  // Records commands, runs them and waits. Throws DeviceError.
  void run_once(const std::function<void(VkCommandBuffer)>& record);

  // Copies to and from a buffer of the device.
  void upload(const std::vector<uint8_t>& bytes, const Buffer& to);
  std::vector<uint8_t> download(const Buffer& from, size_t offset, size_t bytes);

  // It did not answer: it may still use every object, so none may be destroyed, ever.
  bool hung() const { return hung_; }
  // Why it cannot be used any more, or empty.
  std::string failure() const;

  std::atomic<uint64_t> uploaded_bytes{0}, device_bytes{0};

 private:
  void create(bool packed_product);
  void copy(const Buffer& from, size_t offset, const Buffer& to, size_t bytes);
  [[noreturn]] void fail(const std::string& why);

  std::shared_ptr<Instance> instance_;
  Candidate candidate_;
  bool packed_product_;
  VkPhysicalDeviceMemoryProperties memory_{};
  VkDevice handle_ = VK_NULL_HANDLE;
  DeviceFunctions call_{};
  VkQueue queue_ = VK_NULL_HANDLE;
  VkCommandPool command_pool_ = VK_NULL_HANDLE;
  std::unique_ptr<Pipelines> pipelines_;
  std::unique_ptr<KnownChoices> known_choices_;
  SharedConstants constants_;
  std::mutex queue_mutex_, command_mutex_;
  mutable std::mutex failure_mutex_;
  std::string failure_;
  std::atomic<bool> hung_{false};
};

}  // namespace mbq::vulkan
