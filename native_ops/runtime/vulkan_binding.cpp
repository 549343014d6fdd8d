#include "vulkan_binding.h"

#include <nanobind/stl/map.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>

#include "../engine/memory.h"
#include "../vulkan/vulkan.h"

namespace mbq {

namespace nb = nanobind;
using namespace nb::literals;

namespace {

// A plan without a program around it, so that tests can make one of any layers.
class VulkanPlan {
 public:
  VulkanPlan(nb::bytes plan, const std::map<std::string, nb::bytes>& constants, int device) {
    Plan decoded = Plan::decode(plan.data(), plan.size());
    std::vector<Engine::Constant> given;
    for (const std::string& key : decoded.keys) {
      const nb::bytes& bytes = constants.at(key);
      memory_.push_back(std::make_unique<AlignedMemory>(bytes.size()));
      std::memcpy(memory_.back()->data(), bytes.data(), bytes.size());
      given.push_back({memory_.back()->data(), bytes.size()});
    }
    const Engine checked(decoded, given);
    image_bytes_ = checked.image_bytes();
    classes_ = checked.classes();
    level_ = vulkan::make_level(vulkan::open_device(device), decoded, given, false);
  }

  nb::bytes run(nb::bytes image) {
    if (image.size() != image_bytes_) throw nb::value_error("the image has another size");
    std::vector<float> logits(classes_);
    {
      const auto* const pixels = static_cast<const uint8_t*>(image.data());
      const nb::gil_scoped_release released;
      level_->run(pixels, logits.data(), nullptr);
    }
    return nb::bytes(logits.data(), logits.size() * sizeof(float));
  }

  std::vector<vulkan::DispatchSize> dispatches() const { return level_->dispatches(); }

  nb::bytes read(int value) const {
    const std::vector<uint8_t> bytes = level_->read(value);
    return nb::bytes(bytes.data(), bytes.size());
  }

 private:
  std::vector<std::unique_ptr<AlignedMemory>> memory_;
  size_t image_bytes_;
  int classes_;
  std::unique_ptr<vulkan::Level> level_;
};

}  // namespace

void bind_vulkan(nb::module_& module) {
  using vulkan::DeviceDescription;
  using vulkan::DispatchSize;
  using vulkan::Statistics;

  nb::exception<vulkan::DeviceError>(module, "DeviceError", PyExc_RuntimeError);

  nb::class_<DeviceDescription>(module, "DeviceDescription")
      .def_ro("index", &DeviceDescription::index)
      .def_ro("name", &DeviceDescription::name)
      .def_ro("driver", &DeviceDescription::driver)
      .def_ro("version", &DeviceDescription::version)
      .def_ro("software", &DeviceDescription::software)
      .def_ro("packed_product", &DeviceDescription::packed_product)
      .def_ro("clock", &DeviceDescription::clock)
      .def_ro("problem", &DeviceDescription::problem);

  nb::class_<Statistics>(module, "Statistics")
      .def_ro("uploaded_bytes", &Statistics::uploaded_bytes)
      .def_ro("device_bytes", &Statistics::device_bytes)
      .def_ro("frames", &Statistics::frames)
      .def_ro("submits", &Statistics::submits)
      .def_ro("host_microseconds", &Statistics::host_microseconds)
      .def_ro("fence_microseconds", &Statistics::fence_microseconds)
      .def_ro("device_microseconds", &Statistics::device_microseconds);

  nb::class_<DispatchSize>(module, "DispatchSize")
      .def_ro("layer", &DispatchSize::layer)
      .def_ro("shader", &DispatchSize::shader)
      .def_ro("tile", &DispatchSize::tile)
      .def_ro("chosen", &DispatchSize::chosen)
      .def_ro("multiplications", &DispatchSize::multiplications)
      .def_ro("invocations", &DispatchSize::invocations)
      .def_ro("read_bytes", &DispatchSize::read_bytes)
      .def_ro("written_bytes", &DispatchSize::written_bytes)
      .def_ro("least_bytes", &DispatchSize::least_bytes)
      .def_ro("waits", &DispatchSize::waits);

  nb::class_<VulkanPlan>(module, "VulkanPlan")
      .def(nb::init<nb::bytes, const std::map<std::string, nb::bytes>&, int>(), "plan"_a,
           "constants"_a, "device"_a = vulkan::kFirstUsable)
      .def("run", &VulkanPlan::run, "image"_a)
      .def("read", &VulkanPlan::read, "value"_a)
      .def("dispatches", &VulkanPlan::dispatches);

  module.def("vulkan_devices", vulkan::devices);
  module.def("vulkan_shaders", [] {
    nb::dict shaders;
    for (const vulkan::ShaderCode& shader : vulkan::shader_code()) {
      shaders[shader.name] = nb::bytes(shader.words, shader.bytes);
    }
    return shaders;
  });
  module.attr("VULKAN_FIRST_USABLE") = vulkan::kFirstUsable;
}

}  // namespace mbq
