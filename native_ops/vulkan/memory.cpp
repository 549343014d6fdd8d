#include "memory.h"

#include <algorithm>
#include <cstring>

#include "device.h"

namespace mbq::vulkan {
namespace {

// Every device can bind a storage buffer at a multiple of this.
constexpr size_t kAlignment = 256;

size_t align(size_t bytes) { return (bytes + kAlignment - 1) / kAlignment * kAlignment; }

}  // namespace

Buffer::Buffer(Device& device, size_t bytes, Place place)
    : device_(device), size_(align(std::max<size_t>(bytes, 1))), place_(place) {
  const DeviceFunctions& call = device.call();
  VkBufferCreateInfo info{VK_STRUCTURE_TYPE_BUFFER_CREATE_INFO};
  info.size = size_;
  info.usage = VK_BUFFER_USAGE_STORAGE_BUFFER_BIT | VK_BUFFER_USAGE_TRANSFER_DST_BIT |
               VK_BUFFER_USAGE_TRANSFER_SRC_BIT;
  const std::string what = "a buffer of " + std::to_string(size_) + " bytes";
  try {
    require(call.CreateBuffer(device.handle(), &info, nullptr, &handle_), what.c_str());
    VkMemoryRequirements needs;
    call.GetBufferMemoryRequirements(device.handle(), handle_, &needs);
    VkMemoryAllocateInfo allocation{VK_STRUCTURE_TYPE_MEMORY_ALLOCATE_INFO};
    allocation.allocationSize = needs.size;
    allocation.memoryTypeIndex = device.memory_type(
        needs.memoryTypeBits, place == kDevice ? VK_MEMORY_PROPERTY_DEVICE_LOCAL_BIT
                                               : VK_MEMORY_PROPERTY_HOST_VISIBLE_BIT |
                                                     VK_MEMORY_PROPERTY_HOST_COHERENT_BIT);
    require(call.AllocateMemory(device.handle(), &allocation, nullptr, &memory_), what.c_str());
    require(call.BindBufferMemory(device.handle(), handle_, memory_, 0), what.c_str());
    if (place == kHost) {
      void* address = nullptr;
      require(call.MapMemory(device.handle(), memory_, 0, VK_WHOLE_SIZE, 0, &address),
              what.c_str());
      mapped_ = static_cast<uint8_t*>(address);
    }
  } catch (...) {
    release();
    throw;
  }
  if (place == kDevice) device.device_bytes += size_;
}

Buffer::~Buffer() {
  if (device_.hung()) return;
  release();
  if (place_ == kDevice) device_.device_bytes -= size_;
}

void Buffer::release() {
  device_.call().DestroyBuffer(device_.handle(), handle_, nullptr);
  device_.call().FreeMemory(device_.handle(), memory_, nullptr);
}

Part SharedConstants::made(Device& device, const std::string& key, size_t bytes,
                           const std::function<void(const Buffer&)>& fill) {
  const std::lock_guard lock(mutex_);
  Known& known = known_[key];
  std::shared_ptr<const Buffer> buffer = known.buffer.lock();
  if (buffer == nullptr) {
    buffer = std::make_shared<const Buffer>(device, bytes, Buffer::kDevice);
    fill(*buffer);
    known = {buffer, 0};
  }
  return {buffer, 0, bytes};
}

std::vector<Part> SharedConstants::parts(Device& device, const std::vector<Wanted>& wanted) {
  const std::lock_guard lock(mutex_);
  std::vector<Part> parts(wanted.size());
  std::vector<uint8_t> contents;
  for (size_t i = 0; i < wanted.size(); ++i) {
    parts[i].size = wanted[i].bytes.size();
    const auto found = known_.find(wanted[i].key);
    if (found != known_.end()) parts[i].buffer = found->second.buffer.lock();
    if (parts[i].buffer != nullptr) {
      parts[i].offset = found->second.offset;
      continue;
    }
    parts[i].offset = contents.size();
    contents.insert(contents.end(), wanted[i].bytes.begin(), wanted[i].bytes.end());
    contents.resize(align(contents.size()));
  }
  if (contents.empty()) return parts;
  const auto buffer = std::make_shared<const Buffer>(device, contents.size(), Buffer::kDevice);
  device.upload(contents, *buffer);
  for (size_t i = 0; i < wanted.size(); ++i) {
    if (parts[i].buffer != nullptr) continue;
    parts[i].buffer = buffer;
    known_[wanted[i].key] = {buffer, parts[i].offset};
  }
  return parts;
}

}  // namespace mbq::vulkan
