// The reference operators as ExecuTorch operators mbq::*, declared in export/ops.py: the definition
// of a level, and the pattern that the delegate claims. A program runs on them alone, slowly.
//
// A program comes from a file, so every argument is checked before a kernel sees a pointer. Checks
// fail the call and never abort the process.

#include <executorch/extension/kernel_util/make_boxed_from_unboxed_functor.h>
#include <executorch/runtime/kernel/kernel_includes.h>

#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <optional>

#include "../kernels/reference.h"
#include "execution.h"
#include "packed_weight.h"

namespace mbq {

Execution& execution() {
  thread_local Execution state{};
  return state;
}

namespace {

using executorch::aten::ArrayRef;
using executorch::aten::ScalarType;
using executorch::aten::Tensor;
using executorch::runtime::Error;
using executorch::runtime::KernelRuntimeContext;

// Collects the first thing that is wrong with a call.
class Check {
 public:
  Check(KernelRuntimeContext& context, const char* name) : context_(context), name_(name) {}

  bool ok() const { return ok_; }

  [[gnu::format(printf, 3, 4)]] void that(bool condition, const char* format, ...) {
    if (condition || !ok_) return;
    ok_ = false;
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    std::vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    execution().error = std::string("mbq::") + name_ + ": " + text;
    context_.fail(Error::InvalidArgument);
  }

  void tensor(const char* what, const Tensor& tensor, ScalarType type, int dimensions) {
    that(tensor.scalar_type() == type && tensor.dim() == dimensions,
         "%s must have %d dimensions of the declared type", what, dimensions);
    // Row major, whatever order of dimensions the program claims.
    for (int i = 0; ok_ && i < dimensions; ++i) {
      that(tensor.dim_order()[i] == i, "%s must be contiguous", what);
    }
    that(tensor.numel() == 0 || tensor.const_data_ptr() != nullptr, "%s has no data", what);
  }

  // One image [1, height, width, channels].
  void image(const char* what, const Tensor& tensor, ScalarType type) {
    this->tensor(what, tensor, type, 4);
    if (ok_) that(tensor.size(0) == 1, "%s must hold one image", what);
    for (int i = 1; ok_ && i < 4; ++i) {
      that(tensor.size(i) >= 1 && tensor.size(i) <= static_cast<int>(kMaxChannels),
           "%s has a size out of range", what);
    }
  }

  void vector(const char* what, const Tensor& tensor, ScalarType type, int64_t size) {
    this->tensor(what, tensor, type, 1);
    if (ok_)
      that(tensor.size(0) == size, "%s must have %lld elements", what,
           static_cast<long long>(size));
  }

  void result(const Tensor& out, ScalarType type, int height, int width, int channels) {
    image("the output", out, type);
    if (!ok_) return;
    that(out.size(1) == height && out.size(2) == width && out.size(3) == channels,
         "the output must be %d x %d x %d", height, width, channels);
  }

  // Scales, then biases.
  void affine(const Tensor& tensor, int outputs) {
    this->tensor("scale and bias", tensor, ScalarType::Float, 2);
    if (ok_)
      that(tensor.size(0) == 2 && tensor.size(1) == outputs, "scale and bias must be 2 x %d",
           outputs);
  }

  // Takes the image's size into `shape`, whose kernel is known, and checks the geometry.
  void geometry(ConvShape& shape, const Tensor& input, int64_t stride, int64_t pad) {
    that(input.size(3) == shape.inputs, "the input has %d channels, the weight takes %d",
         static_cast<int>(input.size(3)), shape.inputs);
    that(1 <= stride && stride <= 16, "the stride must be within 1..16");
    that(0 <= pad && pad <= static_cast<int64_t>(kMaxKernel), "the padding is out of range");
    if (!ok_) return;
    shape.height = static_cast<int>(input.size(1));
    shape.width = static_cast<int>(input.size(2));
    shape.stride = static_cast<int>(stride);
    shape.pad = static_cast<int>(pad);
    that(shape.height + 2 * shape.pad >= shape.kernel_height &&
             shape.width + 2 * shape.pad >= shape.kernel_width,
         "the kernel is larger than the padded input");
  }

  // Memory until the operator returns, aligned to 64 bytes.
  void* scratch(size_t bytes) {
    if (!ok_) return nullptr;
    const auto memory = context_.allocate_temp(bytes, 64);
    that(memory.ok(), "no memory for %zu bytes of scratch", bytes);
    return memory.ok() ? memory.get() : nullptr;
  }

 private:
  KernelRuntimeContext& context_;
  const char* name_;
  bool ok_ = true;
};

Tensor& stem(KernelRuntimeContext& context, const Tensor& image, const Tensor& weight,
             const Tensor& affine, const Tensor& pad_value, int64_t stride, int64_t pad,
             Tensor& out) {
  Check check(context, "stem");
  check.image("the image", image, ScalarType::Byte);
  check.tensor("the weight", weight, ScalarType::Short, 4);
  for (int i = 0; check.ok() && i < 4; ++i) {
    check.that(
        weight.size(i) >= 1 && weight.size(i) <= (i == 0 ? static_cast<int>(kMaxChannels) : 15),
        "the weight has a shape out of range");
  }
  if (!check.ok()) return out;
  ConvShape shape{};
  shape.outputs = static_cast<int>(weight.size(0));
  shape.kernel_height = static_cast<int>(weight.size(1));
  shape.kernel_width = static_cast<int>(weight.size(2));
  shape.inputs = static_cast<int>(weight.size(3));
  check.geometry(shape, image, stride, pad);
  check.affine(affine, shape.outputs);
  check.vector("the padding value", pad_value, ScalarType::Byte, shape.inputs);
  if (!check.ok()) return out;
  check.result(out, ScalarType::Float, shape.out_height(), shape.out_width(), shape.outputs);
  if (!check.ok()) return out;
  const StemWeights weights{weight.const_data_ptr<int16_t>(), pad_value.const_data_ptr<uint8_t>()};
  reference::ConvOutput output{};
  output.scale = affine.const_data_ptr<float>();
  output.bias = output.scale + shape.outputs;
  output.stream = out.mutable_data_ptr<float>();
  output.relu = true;
  reference::stem(shape, image.const_data_ptr<uint8_t>(), weights, output);
  return out;
}

// The first arguments of every packed convolution.
struct Convolution {
  const Tensor& input;
  double in_scale, in_offset;
  int64_t in_max;
  const Tensor& weight;
  const Tensor& affine;
  const Tensor* residual;
  int64_t stride, pad;
};

// Runs into `out` with what `output` says of codes or of ReLU; sets its pointers.
void convolve(Check& check, uint32_t kind, const Convolution& call, ScalarType result,
              reference::ConvOutput output, Tensor& out) {
  const bool quantised = call.input.scalar_type() == ScalarType::Byte;
  check.image("the input", call.input, quantised ? ScalarType::Byte : ScalarType::Float);
  check.that(0 <= call.in_max && call.in_max <= 255, "input codes must lie within 0..255");
  check.tensor("the weight", call.weight, ScalarType::Byte, 1);
  if (!check.ok()) return;
  ConvShape shape{};
  const uint8_t* const packed = call.weight.const_data_ptr<uint8_t>();
  const char* const wrong =
      read_packed_header(packed, static_cast<size_t>(call.weight.numel()), kind, shape);
  check.that(wrong == nullptr, "the packed weight %s", wrong);
  check.geometry(shape, call.input, call.stride, call.pad);
  check.affine(call.affine, shape.outputs);
  if (!check.ok()) return;
  const int height = shape.out_height(), width = shape.out_width();
  check.result(out, result, height, width, shape.outputs);
  if (call.residual != nullptr) {
    check.image("the residual", *call.residual, ScalarType::Float);
    if (check.ok()) {
      check.that(call.residual->size(1) == height && call.residual->size(2) == width &&
                     call.residual->size(3) == shape.outputs,
                 "the residual must have the output's shape");
    }
  }
  if (!check.ok()) return;
  reference::ConvInput input{};
  if (quantised) {
    input.codes = call.input.const_data_ptr<uint8_t>();
  } else {
    input.stream = call.input.const_data_ptr<float>();
    input.scale = static_cast<float>(call.in_scale);
    input.offset = static_cast<float>(call.in_offset);
    input.highest = static_cast<int>(call.in_max);
  }
  output.scale = call.affine.const_data_ptr<float>();
  output.bias = output.scale + shape.outputs;
  if (result == ScalarType::Byte) {
    output.codes = out.mutable_data_ptr<uint8_t>();
  } else {
    output.stream = out.mutable_data_ptr<float>();
    output.residual = call.residual != nullptr ? call.residual->const_data_ptr<float>() : nullptr;
  }
  (kind == kPackedDepthwise ? reference::depthwise : reference::conv)(
      shape, input, packed + kPackedHeaderBytes, output);
}

void convolve_to_codes(Check& check, uint32_t kind, const Convolution& call, int64_t qmin,
                       int64_t qmax, Tensor& out) {
  check.that(0 <= qmin && qmin <= qmax && qmax <= 255, "codes must lie within 0..255");
  reference::ConvOutput output{};
  output.lowest = static_cast<int>(qmin);
  output.highest = static_cast<int>(qmax);
  convolve(check, kind, call, ScalarType::Byte, output, out);
}

Tensor& conv2d_codes(KernelRuntimeContext& context, const Tensor& input, double in_scale,
                     double in_offset, int64_t in_max, const Tensor& weight, const Tensor& affine,
                     int64_t stride, int64_t pad, int64_t qmin, int64_t qmax, Tensor& out) {
  Check check(context, "conv2d_codes");
  convolve_to_codes(check, kPackedDense,
                    {input, in_scale, in_offset, in_max, weight, affine, nullptr, stride, pad},
                    qmin, qmax, out);
  return out;
}

Tensor& depthwise_codes(KernelRuntimeContext& context, const Tensor& input, double in_scale,
                        double in_offset, int64_t in_max, const Tensor& weight,
                        const Tensor& affine, int64_t stride, int64_t pad, int64_t qmin,
                        int64_t qmax, Tensor& out) {
  Check check(context, "depthwise_codes");
  convolve_to_codes(check, kPackedDepthwise,
                    {input, in_scale, in_offset, in_max, weight, affine, nullptr, stride, pad},
                    qmin, qmax, out);
  return out;
}

Tensor& conv2d_stream(KernelRuntimeContext& context, const Tensor& input, double in_scale,
                      double in_offset, int64_t in_max, const Tensor& weight, const Tensor& affine,
                      executorch::aten::optional<Tensor> residual, int64_t stride, int64_t pad,
                      bool relu, Tensor& out) {
  Check check(context, "conv2d_stream");
  reference::ConvOutput output{};
  output.relu = relu;
  const Tensor* const added = residual.has_value() ? &*residual : nullptr;
  convolve(check, kPackedDense,
           {input, in_scale, in_offset, in_max, weight, affine, added, stride, pad},
           ScalarType::Float, output, out);
  return out;
}

Tensor& max_pool(KernelRuntimeContext& context, const Tensor& input, int64_t kernel, int64_t stride,
                 int64_t pad, Tensor& out) {
  Check check(context, "max_pool");
  const bool codes = input.scalar_type() == ScalarType::Byte;
  const ScalarType type = codes ? ScalarType::Byte : ScalarType::Float;
  check.image("the input", input, type);
  check.that(1 <= kernel && kernel <= static_cast<int64_t>(kMaxKernel) && 1 <= stride &&
                 stride <= 16 && 0 <= pad && 2 * pad <= kernel,
             "the window is out of range");
  if (!check.ok()) return out;
  const PoolShape shape{static_cast<int>(input.size(1)), static_cast<int>(input.size(2)),
                        static_cast<int>(input.size(3)), static_cast<int>(kernel),
                        static_cast<int>(stride),        static_cast<int>(pad)};
  check.that(shape.height + 2 * pad >= kernel && shape.width + 2 * pad >= kernel,
             "the window is larger than the padded input");
  if (!check.ok()) return out;
  check.result(out, type, shape.out_height(), shape.out_width(), shape.channels);
  if (!check.ok()) return out;
  if (codes) {
    reference::max_pool(shape, input.const_data_ptr<uint8_t>(), out.mutable_data_ptr<uint8_t>());
  } else {
    reference::max_pool(shape, input.const_data_ptr<float>(), out.mutable_data_ptr<float>());
  }
  return out;
}

Tensor& fit_channels(KernelRuntimeContext& context, const Tensor& stream, int64_t channels,
                     Tensor& out) {
  Check check(context, "fit_channels");
  check.image("the stream", stream, ScalarType::Float);
  check.that(1 <= channels && channels <= static_cast<int64_t>(kMaxChannels),
             "the number of channels is out of range");
  if (!check.ok()) return out;
  const int height = static_cast<int>(stream.size(1)), width = static_cast<int>(stream.size(2));
  check.result(out, ScalarType::Float, height, width, static_cast<int>(channels));
  if (!check.ok()) return out;
  reference::fit_channels(stream.const_data_ptr<float>(), static_cast<size_t>(height) * width,
                          static_cast<int>(stream.size(3)), static_cast<int>(channels),
                          out.mutable_data_ptr<float>());
  return out;
}

// Branches joined by their mean or by their sum.
Tensor& join_head(KernelRuntimeContext& context, const char* name, bool mean,
                  ArrayRef<Tensor> streams, const Tensor& weight, const Tensor& bias, Tensor& out) {
  Check check(context, name);
  constexpr int kMaxStreams = 16;
  const float* data[kMaxStreams];
  const int count = static_cast<int>(streams.size());
  check.that(1 <= count && count <= kMaxStreams, "takes 1 to %d streams", kMaxStreams);
  for (int i = 0; check.ok() && i < count; ++i) {
    check.image("a stream", streams[i], ScalarType::Float);
    for (int d = 1; check.ok() && d < 4; ++d) {
      check.that(streams[i].size(d) == streams[0].size(d), "streams must have one shape");
    }
    if (check.ok()) data[i] = streams[i].const_data_ptr<float>();
  }
  check.tensor("the weight", weight, ScalarType::Float, 2);
  check.tensor("the output", out, ScalarType::Float, 2);
  if (!check.ok()) return out;
  const int channels = static_cast<int>(streams[0].size(3));
  const int classes = static_cast<int>(weight.size(0));
  check.that(weight.size(1) == channels, "the weight takes %d channels, the streams have %d",
             static_cast<int>(weight.size(1)), channels);
  check.vector("the bias", bias, ScalarType::Float, classes);
  check.that(out.size(0) == 1 && out.size(1) == classes, "the output must be 1 x %d", classes);
  void* const pooled = check.scratch(2 * sizeof(float) * channels);
  if (!check.ok()) return out;
  reference::head(data, count, static_cast<int>(streams[0].size(1) * streams[0].size(2)), channels,
                  weight.const_data_ptr<float>(), bias.const_data_ptr<float>(), classes, mean,
                  static_cast<float*>(pooled), out.mutable_data_ptr<float>());
  return out;
}

Tensor& head(KernelRuntimeContext& context, ArrayRef<Tensor> streams, const Tensor& weight,
             const Tensor& bias, Tensor& out) {
  return join_head(context, "head", true, streams, weight, bias, out);
}

Tensor& head_of_sum(KernelRuntimeContext& context, ArrayRef<Tensor> streams, const Tensor& weight,
                    const Tensor& bias, Tensor& out) {
  return join_head(context, "head_of_sum", false, streams, weight, bias, out);
}

EXECUTORCH_LIBRARY(mbq, "stem.out", stem);
EXECUTORCH_LIBRARY(mbq, "conv2d_codes.out", conv2d_codes);
EXECUTORCH_LIBRARY(mbq, "conv2d_stream.out", conv2d_stream);
EXECUTORCH_LIBRARY(mbq, "depthwise_codes.out", depthwise_codes);
EXECUTORCH_LIBRARY(mbq, "max_pool.out", max_pool);
EXECUTORCH_LIBRARY(mbq, "fit_channels.out", fit_channels);
EXECUTORCH_LIBRARY(mbq, "head.out", head);
EXECUTORCH_LIBRARY(mbq, "head_of_sum.out", head_of_sum);

}  // namespace
}  // namespace mbq
