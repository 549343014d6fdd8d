#include "cache_file.h"

#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

namespace mbq::vulkan {
namespace {

namespace fs = std::filesystem;

constexpr char kMagic[8] = {'M', 'B', 'Q', 'V', 'K', 'P', 'C', '1'};
constexpr uint64_t kMostBytes = uint64_t{256} << 20;

struct Header {
  char magic[8];
  uint64_t size, hash;
};

}  // namespace

uint64_t hash_of(const void* bytes, size_t count, uint64_t before) {
  uint64_t hash = 0xcbf29ce484222325u ^ before;
  const auto* const each = static_cast<const uint8_t*>(bytes);
  for (size_t i = 0; i < count; ++i) hash = (hash ^ each[i]) * 0x100000001b3u;
  return hash;
}

std::string cache_path(const std::string& name) {
  const char* const cache = std::getenv("XDG_CACHE_HOME");
  const char* const home = std::getenv("HOME");
  fs::path folder;
  if (cache != nullptr && *cache == '/') {
    folder = cache;
  } else if (home != nullptr && *home == '/') {
    folder = fs::path(home) / ".cache";
  } else {
    return {};
  }
  return folder / "edge-app" / name;
}

std::vector<uint8_t> read_cache(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  Header header{};
  if (path.empty() || !file.read(reinterpret_cast<char*>(&header), sizeof header)) return {};
  if (std::memcmp(header.magic, kMagic, sizeof kMagic) != 0 || header.size > kMostBytes) return {};
  std::vector<uint8_t> contents(header.size);
  if (!file.read(reinterpret_cast<char*>(contents.data()), contents.size())) return {};
  const bool whole = file.peek() == std::ifstream::traits_type::eof();
  return whole && hash_of(contents.data(), contents.size()) == header.hash ? contents
                                                                           : std::vector<uint8_t>{};
}

void write_cache(const std::string& path, const std::vector<uint8_t>& contents) {
  if (path.empty()) return;
  std::error_code error;
  fs::create_directories(fs::path(path).parent_path(), error);
  const std::string beside = path + "." + std::to_string(getpid());
  Header header{};
  std::memcpy(header.magic, kMagic, sizeof kMagic);
  header.size = contents.size();
  header.hash = hash_of(contents.data(), contents.size());
  bool written = false;
  {
    std::ofstream file(beside, std::ios::binary | std::ios::trunc);
    file.write(reinterpret_cast<const char*>(&header), sizeof header);
    file.write(reinterpret_cast<const char*>(contents.data()), contents.size());
    written = file.flush().good();
  }
  if (written) fs::rename(beside, path, error);
  if (!written || error) fs::remove(beside, error);
}

}  // namespace mbq::vulkan
