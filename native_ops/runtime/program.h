// A loaded program: ExecuTorch's module over bytes that it owns, with its own threads.

#pragma once

#include <executorch/extension/data_loader/buffer_data_loader.h>
#include <executorch/extension/module/module.h>

#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "../engine/engine.h"
#include "../vulkan/vulkan.h"
#include "thread_pool.h"

namespace mbq {

// Every member may be called from several threads; runs take turns, since the methods of a program
// share their activation memory. Failures are std::runtime_error with ExecuTorch's own reason;
// vulkan::DeviceError where it was the device.
class Program {
 public:
  // bytes: aligned to 64, as constants are within a program; they outlive it and do not change.
  // low_memory: weights stay packed and are unpacked in every run.
  // device: where levels run; null for the CPU.
  Program(const void* bytes, size_t size, int threads, bool low_memory, const LayerKernels& kernels,
          std::shared_ptr<vulkan::Device> device);

  std::vector<std::string> methods();
  int64_t constant_int(const std::string& method);
  std::string constant_string(const std::string& method);

  // Makes a method ready and returns the sizes of its input (uint8) and of its output (float32).
  // Throws unless it has exactly one of each.
  struct Signature {
    std::vector<int> input, output;
  };
  Signature load(const std::string& method);

  // Runs a method that was loaded. image and result are as large as its signature says.
  // profile: filled with the time of each layer, or null.
  void run(const std::string& method, const Signature& signature, const uint8_t* image,
           float* result, std::vector<LayerTime>* profile);

  // Does what a method's first run does besides running: chooses kernels, prepares weights. Other
  // runs go on meanwhile; its own first run is then one like all others. Nothing to do on a device.
  void prepare(const std::string& method, const Signature& signature);

  // Goes on without the device: every later run is the CPU's.
  void leave_device();

  // What a method does on the device; throws where it has none.
  vulkan::Statistics statistics(const std::string& method);
  std::vector<vulkan::DispatchSize> dispatches(const std::string& method);

  // Runs methods that were loaded, one after the other, under ExecuTorch's own profiler. Returns
  // its ETDump: a flatbuffer with a block of events for each run, those of the delegate's layers in
  // it.
  std::string trace(const std::vector<std::string>& methods, const Signature& signature,
                    const uint8_t* image);

 private:
  const vulkan::Level& level(const std::string& method) const;
  executorch::runtime::EValue constant(const std::string& method);
  executorch::runtime::Result<std::vector<executorch::runtime::EValue>> execute(
      executorch::extension::Module& module, const std::string& method,
      const executorch::aten::Tensor& input, std::vector<LayerTime>* profile, ThreadPool& pool,
      const std::shared_ptr<vulkan::Device>& device) const;

  std::mutex mutex_;
  const void* bytes_;
  size_t size_;
  ThreadPool pool_;
  bool low_memory_;
  const LayerKernels& kernels_;
  std::shared_ptr<vulkan::Device> device_;
  std::map<std::string, const vulkan::Level*> levels_;  // of methods that the device runs
  executorch::extension::Module module_;
};

}  // namespace mbq
