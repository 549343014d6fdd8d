#include "program.h"

#include <executorch/devtools/etdump/etdump_flatcc.h>
#include <executorch/extension/tensor/tensor.h>
#include <executorch/runtime/platform/platform.h>
#include <executorch/runtime/platform/runtime.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <stdexcept>

#include "../executorch/execution.h"

namespace mbq {
namespace {

using executorch::aten::ScalarType;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Tag;

// ExecuTorch says why a call failed only in its log. The last error of this thread is kept for the
// exception instead of being printed.
thread_local std::string last_log;

void keep_log(et_timestamp_t, et_pal_log_level_t level, const char*, const char*, size_t,
              const char* message, size_t length) {
  if (level == kError || level == kFatal) last_log.assign(message, length);
}

const bool log_is_kept = executorch::runtime::register_pal(
    executorch::runtime::PalImpl::create(keep_log, "native_ops/runtime/program.cpp"));

void forget_errors() {
  last_log.clear();
  execution().error.clear();
  execution().device_failed = false;
}

[[noreturn]] void fail(const std::string& what, Error error) {
  const std::string& operator_error = execution().error;
  const std::string& reason = operator_error.empty() ? last_log : operator_error;
  if (execution().device_failed) throw vulkan::DeviceError(reason);
  throw std::runtime_error(what + ": " +
                           (reason.empty() ? executorch::runtime::to_string(error) : reason));
}

// An input is only read; ExecuTorch has no tensor of constant data.
executorch::extension::TensorPtr image_tensor(const Program::Signature& signature,
                                              const uint8_t* image) {
  return executorch::extension::from_blob(
      const_cast<uint8_t*>(image),
      std::vector<executorch::aten::SizesType>(signature.input.begin(), signature.input.end()),
      ScalarType::Byte);
}

// The sizes of the only input or output, of this type.
std::vector<int> only_tensor(const std::string& method, const char* what, size_t count,
                             executorch::runtime::Result<Tag> tag,
                             executorch::runtime::Result<executorch::runtime::TensorInfo> info,
                             ScalarType type) {
  if (count != 1 || !tag.ok() || *tag != Tag::Tensor || !info.ok() || info->scalar_type() != type) {
    throw std::runtime_error("method " + method + " does not have exactly one " + what +
                             " of the expected type");
  }
  return {info->sizes().begin(), info->sizes().end()};
}

}  // namespace

Program::Program(const void* bytes, size_t size, int threads, bool low_memory,
                 const LayerKernels& kernels, std::shared_ptr<vulkan::Device> device)
    : bytes_(bytes),
      size_(size),
      pool_(threads),
      low_memory_(low_memory),
      kernels_(kernels),
      device_(std::move(device)),
      module_(std::make_unique<executorch::extension::BufferDataLoader>(bytes_, size_),
              /*memory_allocator=*/nullptr, /*temp_allocator=*/nullptr, /*event_tracer=*/nullptr,
              /*data_map_loader=*/nullptr, /*share_memory_arenas=*/true) {
  forget_errors();
  const Error error =
      module_.load(executorch::extension::Program::Verification::InternalConsistency);
  if (error != Error::Ok) fail("the program does not load", error);
}

std::vector<std::string> Program::methods() {
  const std::lock_guard lock(mutex_);
  forget_errors();
  const auto names = module_.method_names();
  if (!names.ok()) fail("the program does not list its methods", names.error());
  std::vector<std::string> sorted(names->begin(), names->end());
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

EValue Program::constant(const std::string& method) {
  const std::lock_guard lock(mutex_);
  forget_errors();
  const auto values = module_.execute(method, std::vector<EValue>{});
  if (!values.ok()) fail("constant method " + method, values.error());
  if (values->size() != 1)
    throw std::runtime_error("constant method " + method + " is not one value");
  return values->front();
}

int64_t Program::constant_int(const std::string& method) {
  const EValue value = constant(method);
  if (!value.isInt()) throw std::runtime_error("constant method " + method + " is not an integer");
  return value.toInt();
}

std::string Program::constant_string(const std::string& method) {
  const EValue value = constant(method);
  if (!value.isString()) throw std::runtime_error("constant method " + method + " is not a string");
  const auto text = value.toString();
  return std::string(text.data(), text.size());
}

Program::Signature Program::load(const std::string& method) {
  const std::lock_guard lock(mutex_);
  forget_errors();
  const auto meta = module_.method_meta(method);
  if (!meta.ok()) fail("method " + method, meta.error());
  Signature signature;
  signature.input = only_tensor(method, "input", meta->num_inputs(), meta->input_tag(0),
                                meta->input_tensor_meta(0), ScalarType::Byte);
  signature.output = only_tensor(method, "output", meta->num_outputs(), meta->output_tag(0),
                                 meta->output_tensor_meta(0), ScalarType::Float);
  Execution& state = execution();
  state.device = device_;
  state.low_memory = low_memory_;
  state.level = nullptr;
  const Error error = module_.load_method(method);
  state.device.reset();
  if (error != Error::Ok) fail("method " + method + " does not load", error);
  if (state.level != nullptr) levels_[method] = state.level;
  return signature;
}

void Program::prepare(const std::string& method, const Signature& signature) {
  {
    const std::lock_guard lock(mutex_);
    if (device_ != nullptr) return;
  }
  size_t bytes = 1;
  for (const int length : signature.input) bytes *= length;
  const std::vector<uint8_t> image(bytes);
  const auto input = image_tensor(signature, image.data());
  forget_errors();
  // A module and threads of its own, for which nobody waits. What it finds out is the process's;
  // the weights are shared, and still there when this program takes them.
  ThreadPool pool(pool_.threads());
  executorch::extension::Module beside(
      std::make_unique<executorch::extension::BufferDataLoader>(bytes_, size_));
  const auto first = execute(beside, method, *input, nullptr, pool, nullptr);
  if (!first.ok()) fail("method " + method, first.error());
  const std::lock_guard lock(mutex_);
  const auto again = execute(module_, method, *input, nullptr, pool_, device_);
  if (!again.ok()) fail("method " + method, again.error());
}

void Program::leave_device() {
  const std::lock_guard lock(mutex_);
  levels_.clear();
  device_.reset();
}

const vulkan::Level& Program::level(const std::string& method) const {
  const auto found = levels_.find(method);
  if (found == levels_.end()) throw std::runtime_error("method " + method + " runs on the CPU");
  return *found->second;
}

vulkan::Statistics Program::statistics(const std::string& method) {
  const std::lock_guard lock(mutex_);
  return level(method).statistics();
}

std::vector<vulkan::DispatchSize> Program::dispatches(const std::string& method) {
  const std::lock_guard lock(mutex_);
  return level(method).dispatches();
}

std::string Program::trace(const std::vector<std::string>& methods, const Signature& signature,
                           const uint8_t* image) {
  const std::lock_guard lock(mutex_);
  forget_errors();
  auto tracer = std::make_unique<executorch::etdump::ETDumpGen>();
  executorch::etdump::ETDumpGen& dump = *tracer;
  // A module of its own, so that other runs do not pay for the profiler.
  executorch::extension::Module traced(
      std::make_unique<executorch::extension::BufferDataLoader>(bytes_, size_), nullptr, nullptr,
      std::move(tracer));
  const auto input = image_tensor(signature, image);
  // The first run of a level chooses its kernels and prepares weights: it is no example of the
  // others.
  for (int round = 0; round < 2; ++round) {
    dump.reset();
    for (const std::string& method : methods) {
      const auto outputs = execute(traced, method, *input, nullptr, pool_, device_);
      if (!outputs.ok()) fail("method " + method, outputs.error());
    }
  }
  const executorch::etdump::ETDumpResult result = dump.get_etdump_data();
  const std::unique_ptr<void, decltype(&std::free)> owner(result.buf, &std::free);
  if (result.buf == nullptr || result.size == 0) {
    throw std::runtime_error("the profiler gave no ETDump");
  }
  return std::string(static_cast<const char*>(result.buf), result.size);
}

executorch::runtime::Result<std::vector<EValue>> Program::execute(
    executorch::extension::Module& module, const std::string& method,
    const executorch::aten::Tensor& input, std::vector<LayerTime>* profile, ThreadPool& pool,
    const std::shared_ptr<vulkan::Device>& device) const {
  Execution& state = execution();
  if (device == nullptr) pool.rouse();
  state.parallel = pool.threads() > 1 ? &pool.parallel() : nullptr;
  state.low_memory = low_memory_;
  state.layers = &kernels_;
  state.profile = profile;
  state.device = device;
  auto outputs = module.execute(method, std::vector<EValue>{EValue(input)});
  state.device.reset();
  state.layers = nullptr;
  state.parallel = nullptr;
  state.profile = nullptr;
  return outputs;
}

void Program::run(const std::string& method, const Signature& signature, const uint8_t* image,
                  float* result, std::vector<LayerTime>* profile) {
  const std::lock_guard lock(mutex_);
  forget_errors();
  const auto outputs =
      execute(module_, method, *image_tensor(signature, image), profile, pool_, device_);
  if (!outputs.ok()) fail("method " + method, outputs.error());
  const auto& output = outputs->front().toTensor();
  std::memcpy(result, output.const_data_ptr<float>(), output.nbytes());
}

}  // namespace mbq
