// Which kernels run: data filled once from what was built, what the CPU has and what the user says.

#include <cstdlib>
#include <cstring>

#include "layers.h"

#if defined(__aarch64__)
#include "arm/detect.h"
#endif

namespace mbq {
namespace {

// A table is used only on a CPU that has every extension its translation units were compiled for.
struct Candidate {
  const LayerKernels* kernels;
  bool supported;
};

#if defined(__x86_64__)
bool cpu_has_avx512vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif

struct Available {
  const LayerKernels* tables[8] = {};  // the last stays null

  Available() {
    const Candidate candidates[] = {
        {portable_layers(), true},
#if defined(__x86_64__)
        {avx2_layers(), __builtin_cpu_supports("avx2") != 0},
        {avxvnni_layers(), __builtin_cpu_supports("avxvnni") != 0},
        {avx512vnni_layers(), cpu_has_avx512vnni()},
        {avx512vbmi_layers(), cpu_has_avx512vnni() && __builtin_cpu_supports("avx512vbmi")},
#elif defined(__aarch64__)
        {neon_layers(), true},
        {neondot_layers(), arm_features().dot},
        {neoni8mm_layers(), arm_features().i8mm},
#endif
    };
    int count = 0;
    for (const Candidate& candidate : candidates) {
      if (candidate.kernels != nullptr && candidate.supported) tables[count++] = candidate.kernels;
    }
  }
};

const LayerKernels* select() {
  const char* const wanted = std::getenv("EDGE_NATIVE_ISA");
  if (wanted != nullptr && *wanted != '\0') return find_layers(wanted);
  const LayerKernels* fastest = nullptr;
  for (const auto* table = available_layers(); *table != nullptr; ++table) fastest = *table;
  return fastest;
}

}  // namespace

const LayerKernels* const* available_layers() {
  static const Available available;
  return available.tables;
}

const LayerKernels* find_layers(const char* name) {
  for (const auto* table = available_layers(); *table != nullptr; ++table) {
    if (std::strcmp((*table)->name, name) == 0) return *table;
  }
  return nullptr;
}

const LayerKernels* selected_layers() {
  static const LayerKernels* const selected = select();
  return selected;
}

}  // namespace mbq
