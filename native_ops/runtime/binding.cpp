// The extension module native_ops._native: programs, and the reference operators for tests and
// checks, over numpy arrays.
//
// RuntimeError: a program that cannot be loaded or run. ValueError: arguments that do not fit.

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <memory>
#include <numeric>
#include <optional>
#include <stdexcept>
#include <string>

#include "../engine/engine.h"
#include "../executorch/packed_weight.h"
#include "../kernels/reference.h"
#include "peer.h"
#include "program.h"
#include "vulkan_binding.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace mbq::binding {
namespace {

template <typename T, int Dimensions>
using Array = nb::ndarray<const T, nb::ndim<Dimensions>, nb::c_contig, nb::device::cpu>;

template <typename T>
using NewArray = nb::ndarray<nb::numpy, T>;

template <typename T>
NewArray<T> new_array(const std::vector<size_t>& shape) {
  const size_t count = std::accumulate(shape.begin(), shape.end(), size_t{1}, std::multiplies<>());
  auto data = std::make_unique<T[]>(count);
  nb::capsule owner(data.get(), [](void* pointer) noexcept { delete[] static_cast<T*>(pointer); });
  return NewArray<T>(data.release(), shape.size(), shape.data(), owner);
}

void require(bool condition, const char* message) {
  if (!condition) throw std::invalid_argument(message);
}

// The table of that name, or the one that EDGE_NATIVE_ISA or this CPU chooses.
const LayerKernels& kernels_named(const std::optional<std::string>& name) {
  const LayerKernels* const found = name ? find_layers(name->c_str()) : selected_layers();
  if (found != nullptr) return *found;
  std::string message =
      name ? "'" + *name : std::string("EDGE_NATIVE_ISA: '") + std::getenv("EDGE_NATIVE_ISA");
  message += "' is not an instruction set of this build and CPU; choose from";
  for (const auto* table = available_layers(); *table != nullptr; ++table) {
    message += std::string(" ") + (*table)->name;
  }
  throw std::invalid_argument(message);
}

void place(ConvShape& shape, size_t height, size_t width, size_t channels, int stride, int pad) {
  require(static_cast<int>(channels) == shape.inputs,
          "the input's channels differ from the weight's");
  require(stride >= 1 && pad >= 0 && pad <= static_cast<int>(kMaxKernel), "bad stride or padding");
  require(height >= 1 && width >= 1 && height <= kMaxChannels && width <= kMaxChannels,
          "the input is empty or too large");
  shape.height = static_cast<int>(height);
  shape.width = static_cast<int>(width);
  shape.stride = stride;
  shape.pad = pad;
  require(
      shape.height + 2 * pad >= shape.kernel_height && shape.width + 2 * pad >= shape.kernel_width,
      "the kernel is larger than the padded input");
}

std::vector<size_t> out_shape(const ConvShape& shape) {
  return {1, static_cast<size_t>(shape.out_height()), static_cast<size_t>(shape.out_width()),
          static_cast<size_t>(shape.outputs)};
}

// Checked pointers to scales and biases in [2, outputs].
reference::ConvOutput scaled_by(const Array<float, 2>& affine, int outputs) {
  require(affine.shape(0) == 2 && affine.shape(1) == static_cast<size_t>(outputs),
          "scale and bias must be [2, outputs]");
  reference::ConvOutput output{};
  output.scale = affine.data();
  output.bias = affine.data() + outputs;
  return output;
}

NewArray<float> stem(Array<uint8_t, 4> image, Array<int16_t, 4> weight, Array<float, 2> affine,
                     Array<uint8_t, 1> pad_value, int stride, int pad) {
  for (size_t i = 0; i < 4; ++i) {
    require(weight.shape(i) >= 1 && weight.shape(i) <= kMaxChannels, "the weight is empty");
  }
  ConvShape shape{};
  shape.outputs = static_cast<int>(weight.shape(0));
  shape.kernel_height = static_cast<int>(weight.shape(1));
  shape.kernel_width = static_cast<int>(weight.shape(2));
  shape.inputs = static_cast<int>(weight.shape(3));
  require(image.shape(0) == 1, "takes one image");
  place(shape, image.shape(1), image.shape(2), image.shape(3), stride, pad);
  require(pad_value.size() == weight.shape(3), "the padding value needs one element a channel");
  reference::ConvOutput output = scaled_by(affine, shape.outputs);
  auto result = new_array<float>(out_shape(shape));
  output.stream = result.data();
  output.relu = true;
  reference::stem(shape, image.data(), {weight.data(), pad_value.data()}, output);
  return result;
}

// Codes or the stream.
using ConvolutionInput = nb::ndarray<nb::ro, nb::ndim<4>, nb::c_contig, nb::device::cpu>;

// One packed convolution from Python's arguments.
struct Convolution {
  Convolution(ConvolutionInput x, double in_scale, double in_offset, int in_max,
              Array<uint8_t, 1> packed, Array<float, 2> affine, int stride, int pad,
              uint32_t packed_kind = kPackedDense)
      : weight(packed), kind(packed_kind) {
    const char* const wrong = read_packed_header(weight.data(), weight.size(), kind, shape);
    if (wrong != nullptr) throw std::invalid_argument(std::string("the packed weight ") + wrong);
    require(x.shape(0) == 1, "takes one image");
    place(shape, x.shape(1), x.shape(2), x.shape(3), stride, pad);
    output = scaled_by(affine, shape.outputs);
    if (x.dtype() == nb::dtype<uint8_t>()) {
      input.codes = static_cast<const uint8_t*>(x.data());
      return;
    }
    require(x.dtype() == nb::dtype<float>(), "the input must be uint8 codes or a float32 stream");
    require(0 <= in_max && in_max <= 255, "input codes must lie within 0..255");
    input.stream = static_cast<const float*>(x.data());
    input.scale = static_cast<float>(in_scale);
    input.offset = static_cast<float>(in_offset);
    input.highest = in_max;
  }

  void run() const {
    const auto& function = kind == kPackedDepthwise ? reference::depthwise : reference::conv;
    function(shape, input, weight.data() + kPackedHeaderBytes, output);
  }

  Array<uint8_t, 1> weight;
  uint32_t kind;
  ConvShape shape{};
  reference::ConvInput input{};
  reference::ConvOutput output{};
};

template <uint32_t kKind>
NewArray<uint8_t> convolve_to_codes(ConvolutionInput input, double in_scale, double in_offset,
                                    int in_max, Array<uint8_t, 1> weight, Array<float, 2> affine,
                                    int stride, int pad, int qmin, int qmax) {
  require(0 <= qmin && qmin <= qmax && qmax <= 255, "codes must lie within 0..255");
  Convolution call(input, in_scale, in_offset, in_max, weight, affine, stride, pad, kKind);
  auto result = new_array<uint8_t>(out_shape(call.shape));
  call.output.codes = result.data();
  call.output.lowest = qmin;
  call.output.highest = qmax;
  call.run();
  return result;
}

NewArray<float> conv2d_stream(ConvolutionInput input, double in_scale, double in_offset, int in_max,
                              Array<uint8_t, 1> weight, Array<float, 2> affine,
                              std::optional<Array<float, 4>> residual, int stride, int pad,
                              bool relu) {
  Convolution call(input, in_scale, in_offset, in_max, weight, affine, stride, pad);
  const auto sizes = out_shape(call.shape);
  auto result = new_array<float>(sizes);
  call.output.stream = result.data();
  call.output.relu = relu;
  if (residual) {
    for (size_t i = 0; i < 4; ++i) {
      require(residual->shape(i) == sizes[i], "the residual must have the output's shape");
    }
    call.output.residual = residual->data();
  }
  call.run();
  return result;
}

template <typename T>
NewArray<T> max_pool(Array<T, 4> input, int kernel, int stride, int pad) {
  require(input.shape(0) == 1, "takes one image");
  for (size_t i = 1; i < 4; ++i) {
    require(1 <= input.shape(i) && input.shape(i) <= kMaxChannels,
            "the input is empty or too large");
  }
  require(1 <= kernel && kernel <= static_cast<int>(kMaxKernel) && stride >= 1 && pad >= 0 &&
              2 * pad <= kernel,
          "the window is out of range");
  const PoolShape shape{static_cast<int>(input.shape(1)),
                        static_cast<int>(input.shape(2)),
                        static_cast<int>(input.shape(3)),
                        kernel,
                        stride,
                        pad};
  require(shape.height + 2 * pad >= kernel && shape.width + 2 * pad >= kernel,
          "the window is larger than the padded input");
  auto result = new_array<T>({1, static_cast<size_t>(shape.out_height()),
                              static_cast<size_t>(shape.out_width()), input.shape(3)});
  reference::max_pool(shape, input.data(), result.data());
  return result;
}

NewArray<float> fit_channels(Array<float, 4> stream, int channels) {
  require(stream.shape(0) == 1, "takes one image");
  require(1 <= channels && channels <= static_cast<int>(kMaxChannels) && stream.shape(3) >= 1 &&
              stream.shape(3) <= kMaxChannels,
          "the number of channels is out of range");
  auto result =
      new_array<float>({1, stream.shape(1), stream.shape(2), static_cast<size_t>(channels)});
  reference::fit_channels(stream.data(), stream.shape(1) * stream.shape(2),
                          static_cast<int>(stream.shape(3)), channels, result.data());
  return result;
}

NewArray<float> head(std::vector<Array<float, 4>> streams, Array<float, 2> weight,
                     Array<float, 1> bias, bool mean) {
  require(!streams.empty(), "needs at least one stream");
  std::vector<const float*> data;
  for (const auto& stream : streams) {
    require(stream.shape(0) == 1, "takes one image");
    for (size_t i = 0; i < 4; ++i) {
      require(stream.shape(i) == streams[0].shape(i), "streams must have one shape");
    }
    data.push_back(stream.data());
  }
  const size_t channels = streams[0].shape(3);
  require(weight.shape(1) == channels && weight.shape(0) == bias.size(),
          "weight must be [classes, channels] and bias [classes]");
  auto result = new_array<float>({1, weight.shape(0)});
  std::vector<float> pooled(2 * channels);
  reference::head(data.data(), static_cast<int>(data.size()),
                  static_cast<int>(streams[0].shape(1) * streams[0].shape(2)),
                  static_cast<int>(channels), weight.data(), bias.data(),
                  static_cast<int>(weight.shape(0)), mean, pooled.data(), result.data());
  return result;
}

void require_image(const Program::Signature& signature, const Array<uint8_t, 3>& image) {
  const auto& input = signature.input;
  require(input.size() == 4 && image.shape(0) == static_cast<size_t>(input[1]) &&
              image.shape(1) == static_cast<size_t>(input[2]) &&
              image.shape(2) == static_cast<size_t>(input[3]),
          "the image does not have the shape that the program takes");
}

NewArray<float> run(Program& program, const std::string& method,
                    const Program::Signature& signature, Array<uint8_t, 3> image,
                    std::vector<LayerTime>* profile) {
  require_image(signature, image);
  auto result = new_array<float>({static_cast<size_t>(signature.output.back())});
  {
    const nb::gil_scoped_release released;
    program.run(method, signature, image.data(), result.data(), profile);
  }
  return result;
}

}  // namespace
}  // namespace mbq::binding

NB_MODULE(_native, module) {
  using namespace mbq::binding;
  using mbq::Program;

  nb::class_<Program::Signature>(module, "Signature")
      .def_ro("input", &Program::Signature::input)
      .def_ro("output", &Program::Signature::output);

  nb::class_<mbq::LayerTime>(module, "LayerTime")
      .def_ro("branch", &mbq::LayerTime::branch)
      .def_ro("layer", &mbq::LayerTime::layer)
      .def_ro("kernel", &mbq::LayerTime::kernel)
      .def_ro("microseconds", &mbq::LayerTime::microseconds)
      .def_ro("macs", &mbq::LayerTime::macs)
      .def_ro("weight_bytes", &mbq::LayerTime::weight_bytes)
      .def_ro("threads", &mbq::LayerTime::threads)
      .def_ro("beside", &mbq::LayerTime::beside);

  nb::class_<Program>(module, "Program")
      .def(
          "__init__",
          [](Program* self, Array<uint8_t, 1> bytes, int threads, bool low_memory,
             std::optional<std::string> isa, std::optional<int> device) {
            require(1 <= threads && threads <= 256, "threads must be within 1..256");
            require(reinterpret_cast<uintptr_t>(bytes.data()) % 64 == 0,
                    "the program must lie at a multiple of 64 bytes");
            const mbq::LayerKernels& kernels = kernels_named(isa);
            new (self) Program(bytes.data(), bytes.size(), threads, low_memory, kernels,
                               device ? mbq::vulkan::open_device(*device) : nullptr);
          },
          "program"_a, "threads"_a, "low_memory"_a = false, "isa"_a = nb::none(),
          "device"_a = nb::none(), nb::keep_alive<1, 2>())
      .def("methods", &Program::methods)
      .def("constant_int", &Program::constant_int, "method"_a)
      .def("constant_string", &Program::constant_string, "method"_a)
      .def("load", &Program::load, "method"_a)
      .def(
          "run",
          [](Program& program, const std::string& method, const Program::Signature& signature,
             Array<uint8_t, 3> image) { return run(program, method, signature, image, nullptr); },
          "method"_a, "signature"_a, "image"_a)
      .def(
          "profile",
          [](Program& program, const std::string& method, const Program::Signature& signature,
             Array<uint8_t, 3> image) {
            std::vector<mbq::LayerTime> layers;
            run(program, method, signature, image, &layers);
            return layers;
          },
          "method"_a, "signature"_a, "image"_a)
      .def("prepare", &Program::prepare, "method"_a, "signature"_a,
           nb::call_guard<nb::gil_scoped_release>())
      .def("leave_device", &Program::leave_device)
      .def("statistics", &Program::statistics, "method"_a)
      .def("dispatches", &Program::dispatches, "method"_a)
      .def(
          "trace",
          [](Program& program, const std::vector<std::string>& methods,
             const Program::Signature& signature, Array<uint8_t, 3> image) {
            require_image(signature, image);
            std::string dump;
            {
              const nb::gil_scoped_release released;
              dump = program.trace(methods, signature, image.data());
            }
            return nb::bytes(dump.data(), dump.size());
          },
          "methods"_a, "signature"_a, "image"_a);

  module.def("stem", stem, "image"_a, "weight"_a, "affine"_a, "pad_value"_a, "stride"_a, "pad"_a);
  module.def("conv2d_codes", convolve_to_codes<mbq::kPackedDense>, "input"_a, "in_scale"_a,
             "in_offset"_a, "in_max"_a, "weight"_a, "affine"_a, "stride"_a, "pad"_a, "qmin"_a,
             "qmax"_a);
  module.def("depthwise_codes", convolve_to_codes<mbq::kPackedDepthwise>, "input"_a, "in_scale"_a,
             "in_offset"_a, "in_max"_a, "weight"_a, "affine"_a, "stride"_a, "pad"_a, "qmin"_a,
             "qmax"_a);
  module.def("conv2d_stream", conv2d_stream, "input"_a, "in_scale"_a, "in_offset"_a, "in_max"_a,
             "weight"_a, "affine"_a, "residual"_a.none(), "stride"_a, "pad"_a, "relu"_a);
  module.def("max_pool", max_pool<uint8_t>, "input"_a, "kernel"_a, "stride"_a, "pad"_a);
  module.def("max_pool", max_pool<float>, "input"_a, "kernel"_a, "stride"_a, "pad"_a);
  module.def("fit_channels", fit_channels, "stream"_a, "channels"_a);
  module.def("head", head, "streams"_a, "weight"_a, "bias"_a, "mean"_a = true);

  module.def("isa_available", [] {
    std::vector<std::string> names;
    for (const auto* table = mbq::available_layers(); *table != nullptr; ++table) {
      names.emplace_back((*table)->name);
    }
    return names;
  });
  module.def("isa_selected", [] { return std::string(kernels_named({}).name); });
  module.def(
      "kernel_names",
      [](const std::string& isa) {
        const mbq::LayerKernels& kernels = kernels_named(isa);
        std::vector<std::string> names;
        for (const auto* list : {kernels.conv, kernels.depthwise}) {
          for (; *list != nullptr; ++list) names.emplace_back((*list)->name);
        }
        for (auto* list = kernels.stem; *list != nullptr; ++list) {
          names.emplace_back((*list)->name);
        }
        return names;
      },
      "isa"_a);
  module.def("prepared_bytes", mbq::prepared_bytes);
  module.def("workspace_bytes", mbq::workspace_bytes);

  mbq::bind_peer(module);
  mbq::bind_vulkan(module);

  module.attr("COMPILER") = "g++ or clang++ " __VERSION__;
  module.attr("EXECUTORCH_VERSION") = MBQ_EXECUTORCH_VERSION;
}
