#include "known_choices.h"

#include <sstream>

#include "cache_file.h"
#include "vulkan.h"

namespace mbq::vulkan {
namespace {

// Measurements of other shaders say nothing about those of this build.
std::string shaders_text() {
  uint64_t hash = 0;
  for (const ShaderCode& shader : shader_code()) {
    hash = hash_of(shader.words, shader.bytes, hash);
  }
  return "shaders " + std::to_string(hash);
}

}  // namespace

KnownChoices::KnownChoices(const std::string& cache_name)
    : path_(cache_path(cache_name + "-choices")), fastest_(read()) {}

// A line for the shaders, then for each layer what describes it, a tab and the variant's name.
std::map<std::string, std::string> KnownChoices::read() const {
  const std::vector<uint8_t> contents = read_cache(path_);
  std::istringstream lines(std::string(contents.begin(), contents.end()));
  std::map<std::string, std::string> found;
  std::string line;
  if (!std::getline(lines, line) || line != shaders_text()) return found;
  while (std::getline(lines, line)) {
    const size_t tab = line.find('\t');
    if (tab != std::string::npos) found[line.substr(0, tab)] = line.substr(tab + 1);
  }
  return found;
}

std::optional<std::string> KnownChoices::find(const std::string& layer) {
  const std::lock_guard lock(mutex_);
  const auto found = fastest_.find(layer);
  return found == fastest_.end() ? std::nullopt : std::optional(found->second);
}

void KnownChoices::add(const std::map<std::string, std::string>& measured) {
  const std::lock_guard lock(mutex_);
  fastest_.merge(read());
  for (const auto& [layer, variant] : measured) fastest_[layer] = variant;
  std::string text = shaders_text() + "\n";
  for (const auto& [layer, variant] : fastest_) text += layer + "\t" + variant + "\n";
  write_cache(path_, {text.begin(), text.end()});
}

}  // namespace mbq::vulkan
