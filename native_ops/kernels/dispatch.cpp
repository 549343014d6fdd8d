// Which kernels run: data filled once from what was built, what the CPU has and what the user says.

#include <cstdlib>
#include <cstring>

#include "kernels.h"

namespace mbq {
namespace {

// A set is used only on a CPU that has every extension its translation unit was compiled for.
struct Candidate {
  const KernelSet* kernels;
  bool supported;
};

#if defined(__x86_64__)
bool cpu_has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

bool cpu_has_avx512vnni() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vnni");
}
#endif

struct Available {
  const KernelSet* sets[4] = {};  // the last stays null

  Available() {
    const Candidate candidates[] = {
        {reference_kernels(), true},
#if defined(__x86_64__)
        {avx2_kernels(), cpu_has_avx2()},
        {avx512vnni_kernels(), cpu_has_avx512vnni()},
#endif
    };
    int count = 0;
    for (const Candidate& candidate : candidates) {
      if (candidate.kernels != nullptr && candidate.supported) sets[count++] = candidate.kernels;
    }
  }
};

const KernelSet* select() {
  const char* const wanted = std::getenv("EDGE_NATIVE_ISA");
  if (wanted != nullptr && *wanted != '\0') return find_kernels(wanted);
  const KernelSet* fastest = nullptr;
  for (const KernelSet* const* set = available_kernels(); *set != nullptr; ++set) fastest = *set;
  return fastest;
}

size_t align(size_t bytes) { return (bytes + 63) / 64 * 64; }

}  // namespace

const KernelSet* const* available_kernels() {
  static const Available available;
  return available.sets;
}

const KernelSet* find_kernels(const char* name) {
  for (const KernelSet* const* set = available_kernels(); *set != nullptr; ++set) {
    if (std::strcmp((*set)->name, name) == 0) return *set;
  }
  return nullptr;
}

const KernelSet* selected_kernels() {
  static const KernelSet* const selected = select();
  return selected;
}

// The vector kernels keep there the padded input and the weights, widened to the operand of the
// multiply. Reading one vector past the last pixel stays inside.
size_t conv_scratch_bytes(const ConvShape& shape) {
  const size_t inputs = round_up(shape.inputs, kCodesPerByte);
  const size_t pixels =
      static_cast<size_t>(shape.height + 2 * shape.pad) * (shape.width + 2 * shape.pad);
  return align(pixels * inputs) + align(packed_payload_bytes(shape) * kCodesPerByte) + 64;
}

size_t depthwise_scratch_bytes(const ConvShape& shape) {
  const size_t pixels =
      static_cast<size_t>(shape.height + 2 * shape.pad) * (shape.width + 2 * shape.pad);
  const size_t taps = static_cast<size_t>(shape.kernel_height) * shape.kernel_width;
  return align(taps * round_up(shape.outputs, kDepthwiseBlock) * sizeof(int16_t)) +
         align(pixels * shape.inputs) + 64;
}

size_t stem_scratch_bytes(const ConvShape& shape) {
  const size_t pixels =
      static_cast<size_t>(shape.height + 2 * shape.pad) * (shape.width + 2 * shape.pad);
  const size_t row = round_up(shape.kernel_width * shape.inputs, 2);
  const size_t outputs = round_up(shape.outputs, kOutputBlock);
  return align(pixels * shape.inputs * 2 + 64) + align(outputs * shape.kernel_height * row * 2) +
         64;
}

}  // namespace mbq
