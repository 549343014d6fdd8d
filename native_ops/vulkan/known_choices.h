// What was measured on a device, kept from process to process.

#pragma once

#include <map>
#include <mutex>
#include <optional>
#include <string>

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

}  // namespace mbq::vulkan
