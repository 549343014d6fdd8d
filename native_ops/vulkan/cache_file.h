// Files that keep what a driver compiled and what was measured. They only save time: whatever is
// wrong with one, it is empty.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace mbq::vulkan {

// In the user's cache folder (XDG_CACHE_HOME, or .cache in HOME); empty without one.
std::string cache_path(const std::string& name);

// FNV-1a of 64 bits, going on from another one's: against damage, not against forgery.
uint64_t hash_of(const void* bytes, size_t count, uint64_t before = 0);

// Drivers trust what they are given: contents that are not exactly what was written are not
// returned.
std::vector<uint8_t> read_cache(const std::string& path);

// Beside its place and renamed, so that other processes see all or nothing.
void write_cache(const std::string& path, const std::vector<uint8_t>& contents);

}  // namespace mbq::vulkan
