// A file that keeps what a driver compiled. It only saves time: whatever is wrong with it, it is
// empty.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace mbq::vulkan {

// In the user's cache folder (XDG_CACHE_HOME, or .cache in HOME); empty without one.
std::string cache_path(const std::string& name);

// Drivers trust what they are given: contents that are not exactly what was written are not
// returned.
std::vector<uint8_t> read_cache(const std::string& path);

// Beside its place and renamed, so that other processes see all or nothing.
void write_cache(const std::string& path, const std::vector<uint8_t>& contents);

}  // namespace mbq::vulkan
