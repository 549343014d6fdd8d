#include "peer.h"

#include <executorch/extension/tensor/tensor.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstring>
#include <memory>
#include <stdexcept>
#include <string>

#include "../kernels/roofline.h"

namespace mbq {
namespace {

namespace nb = nanobind;
using namespace nb::literals;
using executorch::aten::ScalarType;
using executorch::runtime::Error;
using executorch::runtime::EValue;

constexpr const char* kMethod = "forward";

[[noreturn]] void fail(const char* what, Error error) {
  throw std::runtime_error(std::string(what) + ": " + executorch::runtime::to_string(error));
}

// Of any shape: what counts is the order in memory.
template <typename T>
using Values = nb::ndarray<const T, nb::c_contig, nb::device::cpu>;
using NewVector = nb::ndarray<nb::numpy, float, nb::ndim<1>>;

NewVector run_peer(PeerProgram& peer, Values<float> input) {
  if (input.size() != peer.input_count()) {
    throw std::invalid_argument("the input does not have as many elements as the program takes");
  }
  auto data = std::make_unique<float[]>(peer.output_count());
  {
    const nb::gil_scoped_release released;
    peer.run(input.data(), data.get());
  }
  nb::capsule owner(data.get(),
                    [](void* pointer) noexcept { delete[] static_cast<float*>(pointer); });
  const size_t size = peer.output_count();
  return NewVector(data.release(), {size}, owner);
}

const Roofline& roofline_named(const std::string& name) {
  std::string choices;
  for (const Roofline* const* candidate = available_rooflines(); *candidate != nullptr;
       ++candidate) {
    if (name == (*candidate)->name) return **candidate;
    choices += std::string(" ") + (*candidate)->name;
  }
  throw std::invalid_argument("'" + name + "' has no roofline here; choose from" + choices);
}

}  // namespace

PeerProgram::PeerProgram(const void* bytes, size_t size)
    : bytes_(size),
      module_(
          std::make_unique<executorch::extension::BufferDataLoader>(bytes_.data(), bytes_.size())) {
  std::memcpy(bytes_.data(), bytes, size);
  Error error = module_.load(executorch::extension::Program::Verification::InternalConsistency);
  if (error != Error::Ok) fail("the program does not load", error);
  error = module_.load_method(kMethod);
  // The usual reason: its backend has not been loaded into the process.
  if (error != Error::Ok) fail("its method forward does not load", error);
  const auto meta = module_.method_meta(kMethod);
  if (!meta.ok()) fail("its method forward", meta.error());
  const auto input = meta->input_tensor_meta(0);
  const auto output = meta->output_tensor_meta(0);
  if (meta->num_inputs() != 1 || !input.ok() || input->scalar_type() != ScalarType::Float ||
      meta->num_outputs() != 1 || !output.ok() || output->scalar_type() != ScalarType::Float) {
    throw std::runtime_error("its method forward is not one float32 tensor to another");
  }
  sizes_.assign(input->sizes().begin(), input->sizes().end());
  order_.assign(input->dim_order().begin(), input->dim_order().end());
  for (const auto dimension : order_) input_sizes_.push_back(sizes_[dimension]);
  output_sizes_.assign(output->sizes().begin(), output->sizes().end());
}

void PeerProgram::run(const float* input, float* output) {
  // An input is only read; ExecuTorch has no tensor of constant data.
  const auto tensor =
      executorch::extension::make_tensor_ptr(sizes_, const_cast<float*>(input), order_, {});
  const auto outputs = module_.execute(kMethod, std::vector<EValue>{EValue(tensor)});
  if (!outputs.ok()) fail("its method forward", outputs.error());
  const auto& result = outputs->front().toTensor();
  std::memcpy(output, result.const_data_ptr<float>(), result.nbytes());
}

size_t PeerProgram::count(const std::vector<int>& sizes) {
  size_t product = 1;
  for (const int size : sizes) product *= static_cast<size_t>(size);
  return product;
}

void bind_peer(nb::module_& module) {
  nb::class_<PeerProgram>(module, "PeerProgram")
      .def(
          "__init__",
          [](PeerProgram* self, Values<uint8_t> bytes) {
            new (self) PeerProgram(bytes.data(), bytes.size());
          },
          "program"_a)
      .def_prop_ro("input_sizes", &PeerProgram::input_sizes)
      .def_prop_ro("output_sizes", &PeerProgram::output_sizes)
      .def("run", run_peer, "input"_a);

  module.def("rooflines", [] {
    std::vector<std::string> names;
    for (const Roofline* const* candidate = available_rooflines(); *candidate != nullptr;
         ++candidate) {
      names.emplace_back((*candidate)->name);
    }
    return names;
  });
  module.def(
      "roofline",
      [](const std::string& isa) {
        const Roofline& roofline = roofline_named(isa);
        const nb::gil_scoped_release released;
        return measure_roofline(roofline) * 1e-9;
      },
      "isa"_a);
}

}  // namespace mbq
