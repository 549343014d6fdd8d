// The engine as an ExecuTorch delegate, "MbqEngine". Its methods are made by export/delegate.py:
// the processed bytes are a level's plan, the constants that levels share are named data. They are
// the same for the CPU and for a GPU, so that a level which was made for a device can go on without
// it.

#include <executorch/runtime/backend/interface.h>
#include <executorch/runtime/core/evalue.h>
#include <executorch/runtime/platform/clock.h>
#include <executorch/runtime/platform/platform.h>

#include <exception>
#include <memory>
#include <new>

#include "../engine/engine.h"
#include "../vulkan/vulkan.h"
#include "execution.h"

namespace mbq {
namespace {

using executorch::aten::ScalarType;
using executorch::runtime::ArrayRef;
using executorch::runtime::BackendExecutionContext;
using executorch::runtime::BackendInitContext;
using executorch::runtime::CompileSpec;
using executorch::runtime::DelegateHandle;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::FreeableBuffer;
using executorch::runtime::Result;
using executorch::runtime::Span;

// An engine with the buffers that its constants lie in, and the level on a device if it was made
// for one. The engine prepares nothing before it runs, so that beside a device it costs no memory.
struct Delegate {
  std::vector<FreeableBuffer> buffers;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<vulkan::Level> level;
};

Error failed(const char* what, Error error) {
  execution().error = what;
  return error;
}

Error device_failed(const vulkan::DeviceError& error) {
  execution().device_failed = true;
  return failed(error.what(), Error::DelegateMemoryAllocationFailed);
}

// Each layer as an event of the delegate, named after its branch and shape, with its kernel as
// metadata.
void log_layers(executorch::runtime::EventTracer& tracer, et_timestamp_t begin,
                const std::vector<LayerTime>& layers) {
  const et_tick_ratio_t ratio = executorch::runtime::pal_ticks_to_ns_multiplier();
  const auto ticks = [&](double microseconds) {
    return static_cast<et_timestamp_t>(microseconds * 1000 * ratio.denominator / ratio.numerator);
  };
  for (const LayerTime& layer : layers) {
    const std::string name =
        (layer.branch > 0 ? "branch " + std::to_string(layer.branch) + " " : "") + layer.layer;
    tracer.log_profiling_delegate(
        name.c_str(), executorch::runtime::kUnsetDelegateDebugIntId, begin + ticks(layer.start),
        begin + ticks(layer.start + layer.microseconds), layer.kernel.c_str(), layer.kernel.size());
  }
}

class MbqEngine final : public executorch::runtime::BackendInterface {
 public:
  bool is_available() const override { return true; }

  Result<DelegateHandle*> init(BackendInitContext& context, FreeableBuffer* processed,
                               ArrayRef<CompileSpec>) const override {
    try {
      Plan plan = Plan::decode(processed->data(), processed->size());
      processed->Free();
      const auto* const named = context.get_named_data_map();
      if (named == nullptr && !plan.keys.empty()) {
        return failed("the program holds no named data", Error::DelegateInvalidCompatibility);
      }
      auto delegate = std::make_unique<Delegate>();
      std::vector<Engine::Constant> constants;
      for (const std::string& key : plan.keys) {
        auto buffer = named->get_data(key);
        if (!buffer.ok()) return failed("a shared constant is missing", buffer.error());
        if (reinterpret_cast<uintptr_t>(buffer->data()) % 16 != 0) {
          return failed("a shared constant is not aligned", Error::DelegateInvalidCompatibility);
        }
        constants.push_back({static_cast<const uint8_t*>(buffer->data()), buffer->size()});
        delegate->buffers.push_back(std::move(*buffer));
      }
      const std::shared_ptr<vulkan::Device>& device = execution().device;
      if (device == nullptr) {
        delegate->engine = std::make_unique<Engine>(std::move(plan), std::move(constants));
      } else {
        // The engine first: it checks that constants and plan fit.
        delegate->engine = std::make_unique<Engine>(plan, constants);
        delegate->level = vulkan::make_level(device, plan, constants, execution().low_memory);
        execution().level = delegate->level.get();
      }
      return static_cast<DelegateHandle*>(delegate.release());
    } catch (const vulkan::DeviceError& error) {
      return device_failed(error);
    } catch (const std::bad_alloc&) {
      return failed("no memory for the level", Error::MemoryAllocationFailed);
    } catch (const std::exception& error) {
      return failed(error.what(), Error::DelegateInvalidCompatibility);
    }
  }

  Error execute(BackendExecutionContext& context, DelegateHandle* handle,
                Span<EValue*> arguments) const override {
    Delegate& delegate = *static_cast<Delegate*>(handle);
    Engine& engine = *delegate.engine;
    if (arguments.size() != 2 || !arguments[0]->isTensor() || !arguments[1]->isTensor()) {
      return failed("a level takes one image and gives one result", Error::InvalidArgument);
    }
    const auto& image = arguments[0]->toTensor();
    auto& logits = arguments[1]->toTensor();
    if (image.scalar_type() != ScalarType::Byte || image.nbytes() != engine.image_bytes() ||
        logits.scalar_type() != ScalarType::Float || logits.numel() != engine.classes()) {
      return failed("the image or the result does not have the level's shape",
                    Error::InvalidArgument);
    }
    const Execution& state = execution();
    const LayerKernels* const kernels = state.layers != nullptr ? state.layers : selected_layers();
    if (kernels == nullptr) {
      return failed("EDGE_NATIVE_ISA names no instruction set that this CPU runs",
                    Error::InvalidArgument);
    }
    executorch::runtime::EventTracer* const tracer = context.event_tracer();
    std::vector<LayerTime> traced;
    const et_timestamp_t begin = executorch::runtime::pal_current_ticks();
    std::vector<LayerTime>* const profile = tracer != nullptr ? &traced : state.profile;
    try {
      if (state.device != nullptr && delegate.level != nullptr) {
        delegate.level->run(image.const_data_ptr<uint8_t>(), logits.mutable_data_ptr<float>(),
                            profile);
      } else {
        delegate.level.reset();  // the program went on without the device
        engine.run(
            {kernels, state.parallel != nullptr ? state.parallel : &serial(), state.low_memory},
            image.const_data_ptr<uint8_t>(), logits.mutable_data_ptr<float>(), profile);
      }
    } catch (const vulkan::DeviceError& error) {
      return device_failed(error);
    } catch (const std::bad_alloc&) {
      return failed("no memory for the level", Error::MemoryAllocationFailed);
    } catch (const std::exception& error) {
      return failed(error.what(), Error::InvalidState);
    }
    if (tracer != nullptr) log_layers(*tracer, begin, traced);
    return Error::Ok;
  }

  void destroy(DelegateHandle* handle) const override { delete static_cast<Delegate*>(handle); }
};

MbqEngine backend;
[[maybe_unused]] const Error registered =
    executorch::runtime::register_backend({"MbqEngine", &backend});

}  // namespace
}  // namespace mbq
