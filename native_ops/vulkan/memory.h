// Buffers, and constants that levels share.

#pragma once

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "loader.h"

namespace mbq::vulkan {

class Device;

// A storage buffer with memory of its own. The device outlives it.
class Buffer {
 public:
  enum Place {
    kDevice,  // the fastest memory for shaders
    kHost,    // mapped and coherent
  };

  // Throws DeviceError where there is not enough memory.
  Buffer(Device& device, size_t bytes, Place place);
  ~Buffer();
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  VkBuffer handle() const { return handle_; }
  size_t size() const { return size_; }
  uint8_t* mapped() const { return mapped_; }  // null on the device

 private:
  void release();

  Device& device_;
  size_t size_;
  Place place_;
  VkBuffer handle_ = VK_NULL_HANDLE;
  VkDeviceMemory memory_ = VK_NULL_HANDLE;
  uint8_t* mapped_ = nullptr;
};

// A part of a buffer that others may hold too.
struct Part {
  std::shared_ptr<const Buffer> buffer;
  size_t offset, size;
};

// Constants on the device, each once however many levels use it. They go when the last level does.
class SharedConstants {
 public:
  struct Wanted {
    std::string key;
    std::vector<uint8_t> bytes;
  };

  // A buffer that `fill` makes from others on the device, unless it is there already.
  Part made(Device& device, const std::string& key, size_t bytes,
            const std::function<void(const Buffer&)>& fill);

  // A place for each; what is not there yet is uploaded in one piece. Throws DeviceError.
  std::vector<Part> parts(Device& device, const std::vector<Wanted>& wanted);

 private:
  struct Known {
    std::weak_ptr<const Buffer> buffer;
    size_t offset;
  };
  std::mutex mutex_;
  std::map<std::string, Known> known_;
};

}  // namespace mbq::vulkan
