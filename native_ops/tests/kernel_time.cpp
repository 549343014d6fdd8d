// Times kernels on the layers of networks, on one thread: the least of many repetitions, since
// whatever else runs on a machine only ever adds time.

#include <chrono>
#include <ctime>
#include <limits>

#include "../kernels/flush.h"
#include "output_case.h"

namespace check {
namespace {

using Clock = std::chrono::steady_clock;
using mbq::ConvShape;

struct Layer {
  const char* network;
  ConvShape shape;
};

constexpr Layer kConvLayers[] = {
    {"ResNet-18", {56, 56, 64, 64, 3, 3, 1, 1}},
    {"ResNet-18", {28, 28, 128, 128, 3, 3, 1, 1}},
    {"ResNet-18", {14, 14, 256, 256, 3, 3, 1, 1}},
    {"ResNet-18", {7, 7, 512, 512, 3, 3, 1, 1}},
    {"ResNet-18", {56, 56, 64, 128, 3, 3, 2, 1}},
    {"ResNet-18", {28, 28, 128, 256, 3, 3, 2, 1}},
    {"ResNet-18", {14, 14, 256, 512, 3, 3, 2, 1}},
    {"ResNet-18", {56, 56, 64, 128, 1, 1, 2, 0}},
    {"ResNet-18", {28, 28, 128, 256, 1, 1, 2, 0}},
    {"ResNet-18", {14, 14, 256, 512, 1, 1, 2, 0}},
    {"ResNet-20", {32, 32, 16, 16, 3, 3, 1, 1}},
    {"ResNet-20", {16, 16, 32, 32, 3, 3, 1, 1}},
    {"ResNet-20", {8, 8, 64, 64, 3, 3, 1, 1}},
    {"ResNet-20", {32, 32, 16, 32, 3, 3, 2, 1}},
    {"ResNet-20", {16, 16, 32, 64, 3, 3, 2, 1}},
    {"MobileNetV1", {112, 112, 32, 64, 1, 1, 1, 0}},
    {"MobileNetV1", {56, 56, 64, 128, 1, 1, 1, 0}},
    {"MobileNetV1", {56, 56, 128, 128, 1, 1, 1, 0}},
    {"MobileNetV1", {28, 28, 128, 256, 1, 1, 1, 0}},
    {"MobileNetV1", {28, 28, 256, 256, 1, 1, 1, 0}},
    {"MobileNetV1", {14, 14, 256, 512, 1, 1, 1, 0}},
    {"MobileNetV1", {14, 14, 512, 512, 1, 1, 1, 0}},
    {"MobileNetV1", {7, 7, 512, 1024, 1, 1, 1, 0}},
    {"MobileNetV1", {7, 7, 1024, 1024, 1, 1, 1, 0}},
};
constexpr Layer kDepthwiseLayers[] = {
    {"MobileNetV1", {112, 112, 32, 32, 3, 3, 1, 1}},
    {"MobileNetV1", {112, 112, 64, 64, 3, 3, 2, 1}},
    {"MobileNetV1", {56, 56, 128, 128, 3, 3, 1, 1}},
    {"MobileNetV1", {56, 56, 128, 128, 3, 3, 2, 1}},
    {"MobileNetV1", {28, 28, 256, 256, 3, 3, 1, 1}},
    {"MobileNetV1", {28, 28, 256, 256, 3, 3, 2, 1}},
    {"MobileNetV1", {14, 14, 512, 512, 3, 3, 1, 1}},
    {"MobileNetV1", {14, 14, 512, 512, 3, 3, 2, 1}},
    {"MobileNetV1", {7, 7, 1024, 1024, 3, 3, 1, 1}},
};
constexpr Layer kStemLayers[] = {
    {"ResNet-18", {224, 224, 3, 64, 7, 7, 2, 3}},
    {"MobileNetV1", {224, 224, 3, 32, 3, 3, 2, 1}},
    {"ResNet-20", {32, 32, 3, 16, 3, 3, 1, 1}},
};

// Of this thread on a CPU: a layer of milliseconds is rarely left alone for all of its run.
double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + static_cast<double>(now.tv_nsec) * 1e-9;
}

// What the other layers of a frame leave in the caches: 4 MB of theirs, and nothing of what comes
// from memory, packed weights of a large network or an image.
class Cold {
 public:
  Cold(bool cold, const Buffer<uint8_t>& from_memory)
      : other_(cold ? 4 << 20 : 0), from_memory_(from_memory) {}

  void operator()() {
    if (other_.empty()) return;
    std::fill(other_.begin(), other_.end(), ++round_);
    mbq::flush(from_memory_.data(), from_memory_.size());
  }

 private:
  std::vector<uint8_t> other_;
  const Buffer<uint8_t>& from_memory_;
  uint8_t round_ = 0;
};

// before: what is done before each run.
template <typename Before, typename Run>
double least_seconds(Before before, const Run& run) {
  double least = std::numeric_limits<double>::infinity();
  const auto end = Clock::now() + std::chrono::milliseconds(100);
  for (int i = 0; i < 3 || Clock::now() < end; ++i) {
    before();
    const double start = cpu_seconds();
    run();
    const double took = cpu_seconds() - start;
    if (took < least) least = took;
  }
  return least;
}

std::string name_of(const ConvShape& shape) {
  char name[64];
  std::snprintf(name, sizeof name, "%dx%dx%d->%d %dx%ds%d", shape.height, shape.width, shape.inputs,
                shape.outputs, shape.kernel_height, shape.kernel_width, shape.stride);
  return name;
}

void print(const Layer& layer, const char* table, const char* kernel, int highest, double seconds,
           bool depthwise) {
  const ConvShape& shape = layer.shape;
  const double products = 1.0 * shape.out_height() * shape.out_width() * shape.outputs *
                          shape.kernel_height * shape.kernel_width * (depthwise ? 1 : shape.inputs);
  std::printf("%-12s %-26s %3d  %-11s %-46s %9.1f us %7.1f GMAC/s\n", layer.network,
              name_of(shape).c_str(), highest, table, kernel, seconds * 1e6,
              products / seconds * 1e-9);
  std::fflush(stdout);
}

class Timer {
 public:
  explicit Timer(const Options& options) : options_(options), random_(options.seed) {}

  template <size_t count>
  void convolutions(const Layer (&layers)[count], bool depthwise) {
    for (const Layer& layer : layers) {
      if (!wants(layer)) continue;
      for (int highest : {3, 255}) {
        for (const mbq::LayerKernels* const* table = mbq::available_layers(); *table; ++table) {
          if (!options_.wants_table((*table)->name)) continue;
          const auto* kernels = depthwise ? (*table)->depthwise : (*table)->conv;
          for (; *kernels; ++kernels) {
            if (!options_.wants_kernel((*kernels)->name)) continue;
            if (!(*kernels)->supports(layer.shape, highest)) continue;
            const double seconds = convolution(**kernels, layer.shape, highest, depthwise);
            print(layer, (*table)->name, (*kernels)->name, highest, seconds, depthwise);
          }
        }
      }
    }
  }

  void stems() {
    for (const Layer& layer : kStemLayers) {
      if (!wants(layer)) continue;
      for (const mbq::LayerKernels* const* table = mbq::available_layers(); *table; ++table) {
        if (!options_.wants_table((*table)->name)) continue;
        for (const auto* kernels = (*table)->stem; *kernels; ++kernels) {
          if (!options_.wants_kernel((*kernels)->name)) continue;
          print(layer, (*table)->name, (*kernels)->name, 255, stem(**kernels, layer.shape), false);
        }
      }
    }
  }

 private:
  bool wants(const Layer& layer) const {
    return options_.layer == nullptr ||
           name_of(layer.shape).find(options_.layer) != std::string::npos;
  }

  OutputCase output(const ConvShape& shape, bool direct) {
    const OutputKind stream{"", false, true, true, true, 1};
    return OutputCase(shape, direct ? kOutputKinds[0] : stream, 100.0f, false, random_);
  }

  Buffer<uint8_t> random_bytes(size_t count, int highest) {
    Buffer<uint8_t> bytes(count);
    for (size_t i = 0; i < count; ++i) bytes[i] = static_cast<uint8_t>(random_.between(0, highest));
    return bytes;
  }

  double convolution(const mbq::ConvKernel& kernel, const ConvShape& shape, int highest,
                     bool depthwise) {
    const Buffer<uint8_t> payload = random_bytes(
        depthwise ? mbq::depthwise_payload_bytes(shape) : mbq::packed_payload_bytes(shape), 255);
    std::vector<uint8_t> codes(static_cast<size_t>(shape.height) * shape.width * shape.inputs);
    for (uint8_t& code : codes) code = static_cast<uint8_t>(random_.between(0, highest));
    Image input(Image::kInput, shape.height, shape.width, shape.inputs, shape.pad, 0, 0);
    input.set_input(codes, random_);
    Buffer<uint8_t> prepared(kernel.prepared_bytes(shape));
    if (prepared.size() > 0) kernel.prepare(shape, payload.data(), prepared.data());
    const mbq::Parallel pool = parallel(kOneThread);
    Buffer<uint8_t> scratch(kernel.scratch_bytes(shape, pool.threads));
    OutputCase to = output(shape, std::strcmp(options_.output, "direct") == 0);
    const mbq::ConvCall call{shape,
                             input.view(),
                             payload.data(),
                             prepared.size() > 0 ? prepared.data() : nullptr,
                             to.prepare(random_),
                             scratch.data()};
    return least_seconds(Cold(options_.cold, payload), [&] { kernel.run(call, pool); });
  }

  double stem(const mbq::StemKernel& kernel, const ConvShape& shape) {
    const Buffer<uint8_t> image =
        random_bytes(static_cast<size_t>(shape.height) * shape.width * shape.inputs, 255);
    const Buffer<uint8_t> pad_value = random_bytes(shape.inputs, 255);
    Buffer<int16_t> weights(static_cast<size_t>(shape.outputs) * shape.kernel_height *
                            shape.kernel_width * shape.inputs);
    for (size_t i = 0; i < weights.size(); ++i) {
      weights[i] = static_cast<int16_t>(random_.between(-128, 127));
    }
    const mbq::StemWeights given{weights.data(), pad_value.data()};
    Buffer<uint8_t> prepared(kernel.prepared_bytes(shape));
    if (prepared.size() > 0) kernel.prepare(shape, given, prepared.data());
    const mbq::Parallel pool = parallel(kOneThread);
    Buffer<uint8_t> scratch(kernel.scratch_bytes(shape, pool.threads));
    OutputCase to = output(shape, false);
    const mbq::StemCall call{shape,
                             image.data(),
                             given,
                             prepared.size() > 0 ? prepared.data() : nullptr,
                             to.prepare(random_),
                             scratch.data()};
    return least_seconds(Cold(options_.cold, image), [&] { kernel.run(call, pool); });
  }

  const Options& options_;
  Random random_;
};

}  // namespace

int time_kernels(const Options& options) {
  Timer timer(options);
  timer.convolutions(kConvLayers, false);
  timer.convolutions(kDepthwiseLayers, true);
  timer.stems();
  return 0;
}

}  // namespace check
