// How convolutions are computed here: measured on the device, once for each shape, and kept.

#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

#include "operands.h"

namespace mbq::vulkan {

// The variants that were the fastest, by what describes a layer, also in a file of the user's
// cache.
class KnownChoices {
 public:
  // cache_name: of driver and device.
  explicit KnownChoices(const std::string& cache_name);

  std::optional<std::string> find(const std::string& layer);
  // Also what other processes have written meanwhile stays.
  void add(const std::map<std::string, std::string>& measured);

 private:
  std::map<std::string, std::string> read() const;

  std::mutex mutex_;
  std::string path_;
  std::map<std::string, std::string> fastest_;
};

// Sets the variant of every convolution, and on the device the transformed weights of those that
// need some: by measuring with the device's clock, or as EDGE_VULKAN_CONV says (direct, f2x2, or
// the name of a variant). low_memory: nothing is transformed. Throws DeviceError.
void choose_variants(Device& device, const Plan& plan, bool low_memory, Operands& operands);

}  // namespace mbq::vulkan
