// A program of another backend, to be timed beside ours: float32 in, float32 out.
//
// It runs in the same ExecuTorch runtime: a shared library that registers a backend, and that is
// loaded into the process after this module, finds the libexecutorch.so that is already there.

#pragma once

#include <executorch/extension/data_loader/buffer_data_loader.h>
#include <executorch/extension/module/module.h>
#include <nanobind/nanobind.h>

#include <vector>

#include "../engine/memory.h"

namespace mbq {

// Failures are std::runtime_error. One thread at a time.
class PeerProgram {
 public:
  // Copies the bytes and makes the method `forward` ready: one float32 tensor to another.
  PeerProgram(const void* bytes, size_t size);

  // In the order of memory, which for images is that of the program's own input.
  const std::vector<int>& input_sizes() const { return input_sizes_; }
  const std::vector<int>& output_sizes() const { return output_sizes_; }
  size_t input_count() const { return count(input_sizes_); }
  size_t output_count() const { return count(output_sizes_); }

  void run(const float* input, float* output);

 private:
  static size_t count(const std::vector<int>& sizes);

  AlignedMemory bytes_;
  executorch::extension::Module module_;
  std::vector<executorch::aten::SizesType> sizes_;
  std::vector<executorch::aten::DimOrderType> order_;
  std::vector<int> input_sizes_, output_sizes_;
};

// Adds PeerProgram and roofline() to the module.
void bind_peer(nanobind::module_& module);

}  // namespace mbq
