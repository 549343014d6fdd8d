#include "device.h"

#include <cstdlib>
#include <cstring>

#include "../engine/stopwatch.h"
#include "known_choices.h"

namespace mbq::vulkan {
namespace {

// A frame takes milliseconds. Drivers notice a hung GPU after 2 to 10 seconds by themselves; a CPU
// that pretends to be one never hangs, but may be busy with other things.
constexpr uint64_t kSecond = 1'000'000'000;
constexpr uint64_t kTimeout = 10 * kSecond, kSoftwareTimeout = 300 * kSecond;

// The packed product where it is fast; EDGE_VULKAN_PRODUCT=packed or plain says otherwise.
bool choose_product(const Candidate& candidate) {
  const char* const wanted = std::getenv("EDGE_VULKAN_PRODUCT");
  if (wanted == nullptr || *wanted == '\0') return candidate.description.packed_product;
  if (std::strcmp(wanted, "plain") == 0) return false;
  if (std::strcmp(wanted, "packed") != 0) {
    throw DeviceError(std::string("EDGE_VULKAN_PRODUCT: '") + wanted + "' is not packed or plain");
  }
  if (!candidate.has_packed_product) {
    throw DeviceError("EDGE_VULKAN_PRODUCT: " + candidate.description.name +
                      " has no packed product; leave it away");
  }
  return true;
}

}  // namespace

Device::Device(std::shared_ptr<Instance> instance, const Candidate& candidate)
    : instance_(std::move(instance)),
      candidate_(candidate),
      packed_product_(choose_product(candidate)) {
  create(packed_product_);
  try {
    call_.GetDeviceQueue(handle_, candidate.queue_family, 0, &queue_);
    VkCommandPoolCreateInfo pool{VK_STRUCTURE_TYPE_COMMAND_POOL_CREATE_INFO};
    pool.queueFamilyIndex = candidate.queue_family;
    require(call_.CreateCommandPool(handle_, &pool, nullptr, &command_pool_), "a command pool");
    pipelines_ = std::make_unique<Pipelines>(*this, candidate.cache_name);
    known_choices_ = std::make_unique<KnownChoices>(candidate.cache_name);
  } catch (...) {
    call_.DestroyCommandPool(handle_, command_pool_, nullptr);
    call_.DestroyDevice(handle_, nullptr);
    throw;
  }
}

void Device::create(bool packed_product) {
  const float priority = 1.0f;
  VkDeviceQueueCreateInfo queue{VK_STRUCTURE_TYPE_DEVICE_QUEUE_CREATE_INFO};
  queue.queueFamilyIndex = candidate_.queue_family;
  queue.queueCount = 1;
  queue.pQueuePriorities = &priority;
  VkPhysicalDeviceShaderIntegerDotProductFeaturesKHR feature{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES_KHR};
  feature.shaderIntegerDotProduct = VK_TRUE;
  const char* const extension = VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME;
  VkDeviceCreateInfo info{VK_STRUCTURE_TYPE_DEVICE_CREATE_INFO};
  info.queueCreateInfoCount = 1;
  info.pQueueCreateInfos = &queue;
  if (packed_product) {
    info.pNext = &feature;
    info.enabledExtensionCount = 1;
    info.ppEnabledExtensionNames = &extension;
  }
  const InstanceFunctions& call = instance_->call();
  call.GetPhysicalDeviceMemoryProperties(candidate_.handle, &memory_);
  const std::string what = "opening " + candidate_.description.name;
  require(call.CreateDevice(candidate_.handle, &info, nullptr, &handle_), what.c_str());
#define MBQ_VULKAN_FIND(name) \
  call_.name = reinterpret_cast<PFN_vk##name>(call.GetDeviceProcAddr(handle_, "vk" #name));
  MBQ_VULKAN_DEVICE_FUNCTIONS(MBQ_VULKAN_FIND)
#undef MBQ_VULKAN_FIND
}

Device::~Device() {
  pipelines_.reset();
  call_.DestroyCommandPool(handle_, command_pool_, nullptr);
  call_.DestroyDevice(handle_, nullptr);
}

uint32_t Device::memory_type(uint32_t allowed, VkMemoryPropertyFlags wanted) const {
  for (uint32_t i = 0; i < memory_.memoryTypeCount; ++i) {
    if ((allowed >> i & 1) && (memory_.memoryTypes[i].propertyFlags & wanted) == wanted) return i;
  }
  throw DeviceError("Vulkan: " + candidate_.description.name + " has no memory of the needed kind");
}

double Device::run(VkCommandBuffer commands, VkFence fence) {
  const std::string before = failure();
  if (!before.empty()) throw DeviceError(before);
  VkSubmitInfo submit{VK_STRUCTURE_TYPE_SUBMIT_INFO};
  submit.commandBufferCount = 1;
  submit.pCommandBuffers = &commands;
  VkResult result = call_.ResetFences(handle_, 1, &fence);
  if (result == VK_SUCCESS) {
    const std::lock_guard lock(queue_mutex_);
    result = call_.QueueSubmit(queue_, 1, &submit, fence);
  }
  const Stopwatch watch;
  if (result == VK_SUCCESS) {
    const uint64_t timeout = candidate_.description.software ? kSoftwareTimeout : kTimeout;
    result = call_.WaitForFences(handle_, 1, &fence, VK_TRUE, timeout);
  }
  const double waited = watch.microseconds();
  if (result == VK_TIMEOUT) {
    hung_ = true;
    fail("did not answer in time");
  }
  if (result != VK_SUCCESS) {
    try {
      require(result, "running a frame");
    } catch (const DeviceError& error) {
      fail(error.what());
    }
  }
  return waited;
}

void Device::fail(const std::string& why) {
  const std::string text = candidate_.description.name + ": " + why;
  const std::lock_guard lock(failure_mutex_);
  if (failure_.empty()) failure_ = text;
  throw DeviceError(text);
}

std::string Device::failure() const {
  const std::lock_guard lock(failure_mutex_);
  return failure_;
}

void Device::upload(const std::vector<uint8_t>& bytes, const Buffer& to) {
  const Buffer staging(*this, bytes.size(), Buffer::kHost);
  std::memcpy(staging.mapped(), bytes.data(), bytes.size());
  copy(staging, 0, to, bytes.size());
  uploaded_bytes += bytes.size();
}

std::vector<uint8_t> Device::download(const Buffer& from, size_t offset, size_t bytes) {
  const Buffer staging(*this, bytes, Buffer::kHost);
  copy(from, offset, staging, bytes);
  return {staging.mapped(), staging.mapped() + bytes};
}

void Device::copy(const Buffer& from, size_t offset, const Buffer& to, size_t bytes) {
  run_once([&](VkCommandBuffer commands) {
    const VkBufferCopy region{offset, 0, bytes};
    call_.CmdCopyBuffer(commands, from.handle(), to.handle(), 1, &region);
    // For every frame that follows on the queue, and for the host.
    VkMemoryBarrier barrier{VK_STRUCTURE_TYPE_MEMORY_BARRIER};
    barrier.srcAccessMask = VK_ACCESS_TRANSFER_WRITE_BIT;
    barrier.dstAccessMask = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_HOST_READ_BIT;
    call_.CmdPipelineBarrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT,
                             VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT | VK_PIPELINE_STAGE_HOST_BIT, 0,
                             1, &barrier, 0, nullptr, 0, nullptr);
  });
}

void Device::run_once(const std::function<void(VkCommandBuffer)>& record) {
  const std::lock_guard lock(command_mutex_);
  VkCommandBufferAllocateInfo allocation{VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO};
  allocation.commandPool = command_pool_;
  allocation.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
  allocation.commandBufferCount = 1;
  VkCommandBuffer commands = VK_NULL_HANDLE;
  VkFence fence = VK_NULL_HANDLE;
  require(call_.AllocateCommandBuffers(handle_, &allocation, &commands), "preparing a level");
  const auto release = [&] {
    if (hung_) return;
    call_.DestroyFence(handle_, fence, nullptr);
    call_.FreeCommandBuffers(handle_, command_pool_, 1, &commands);
  };
  try {
    const VkFenceCreateInfo fence_info{VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    require(call_.CreateFence(handle_, &fence_info, nullptr, &fence), "preparing a level");
    VkCommandBufferBeginInfo begin{VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    begin.flags = VK_COMMAND_BUFFER_USAGE_ONE_TIME_SUBMIT_BIT;
    require(call_.BeginCommandBuffer(commands, &begin), "preparing a level");
    record(commands);
    require(call_.EndCommandBuffer(commands), "preparing a level");
    run(commands, fence);
  } catch (...) {
    release();
    throw;
  }
  release();
}

std::shared_ptr<Device> open_device(int index) {
  static std::mutex mutex;
  static std::map<int, std::weak_ptr<Device>> opened;
  const std::lock_guard lock(mutex);
  auto instance = Instance::open();
  const std::vector<Candidate> found = candidates(*instance);
  const Candidate* chosen = nullptr;
  std::string problems;
  for (const Candidate& candidate : found) {
    const DeviceDescription& description = candidate.description;
    if (index != kFirstUsable && index != description.index) continue;
    if (description.problem.empty()) {
      chosen = &candidate;
      break;
    }
    problems += (problems.empty() ? "" : "; ") + description.name + " " + description.problem;
  }
  if (chosen == nullptr) {
    throw DeviceError(problems.empty() ? "Vulkan has no device " + std::to_string(index) +
                                             "; it has 0 to " + std::to_string(found.size() - 1)
                                       : problems);
  }
  std::weak_ptr<Device>& known = opened[chosen->description.index];
  std::shared_ptr<Device> device = known.lock();
  if (device != nullptr && !device->failure().empty()) throw DeviceError(device->failure());
  if (device == nullptr) {
    // One that hung is never given back: it may still use what it has.
    device = std::shared_ptr<Device>(new Device(std::move(instance), *chosen), [](Device* held) {
      if (!held->hung()) delete held;
    });
    known = device;
  }
  return device;
}

}  // namespace mbq::vulkan
