// Convolutions of codes, ordinary and depthwise, over a grid of shapes and contents.

#include <algorithm>

#include "output_case.h"

namespace check {
namespace {

using mbq::ConvKernel;
using mbq::ConvShape;

constexpr int kHighest[] = {3, 255, 15, 63, 1, 7};

int64_t work(const ConvShape& shape, bool depthwise) {
  return int64_t{1} * shape.out_height() * shape.out_width() * shape.outputs * shape.kernel_height *
         shape.kernel_width * (depthwise ? 1 : shape.inputs);
}

bool possible(const ConvShape& shape) {
  return shape.height + 2 * shape.pad >= shape.kernel_height &&
         shape.width + 2 * shape.pad >= shape.kernel_width;
}

// Shapes that networks have and the edges of tiles first, then whatever the seed gives.
std::vector<ConvShape> shapes(const Options& options, bool depthwise, Random& random) {
  static constexpr int kSizes[][2] = {{1, 1},   {1, 2},  {2, 1},   {2, 3},   {3, 3},   {4, 4},
                                      {5, 7},   {6, 6},  {7, 7},   {8, 9},   {9, 5},   {11, 13},
                                      {14, 14}, {1, 33}, {16, 16}, {28, 28}, {33, 29}, {20, 3}};
  static constexpr int kChannels[][2] = {
      {16, 16},  {64, 64}, {3, 16},  {32, 32}, {16, 32},  {1, 1},     {4, 8},     {8, 17},
      {17, 33},  {48, 48}, {33, 48}, {5, 64},  {128, 64}, {96, 96},   {128, 128}, {64, 128},
      {256, 40}, {2, 100}, {20, 24}, {80, 16}, {32, 256}, {256, 256}, {512, 512}, {512, 1}};
  static constexpr int kKernels[][3] = {// side, stride, pad
                                        {3, 1, 1}, {3, 2, 1}, {1, 1, 0}, {1, 2, 0}, {3, 1, 0},
                                        {5, 1, 2}, {3, 2, 0}, {7, 2, 3}, {3, 1, 2}, {5, 2, 2},
                                        {1, 1, 1}, {3, 1, 3}, {7, 1, 3}, {5, 1, 0}, {3, 3, 1}};
  const int64_t most = options.quick ? 1 << 20 : 1 << 23;
  std::vector<ConvShape> result;
  const auto add = [&](ConvShape shape, int64_t limit) {
    if (depthwise) {
      shape.inputs = shape.outputs;
      shape.kernel_width = shape.kernel_height;
      if (shape.kernel_height > mbq::kMaxDepthwiseKernel) return;
    }
    if (possible(shape) && work(shape, depthwise) <= limit) result.push_back(shape);
  };
  // Every size with every kernel, channels in turn.
  int turn = 0;
  for (const auto& kernel : kKernels) {
    for (const auto& size : kSizes) {
      for (int i = 0; i < (options.quick ? 1 : 4); ++i) {
        const auto& channels = kChannels[turn++ % std::size(kChannels)];
        add({size[0], size[1], channels[0], channels[1], kernel[0], kernel[0], kernel[1],
             kernel[2]},
            most);
      }
    }
  }
  // Every pair of channels at 3x3, where fast algorithms are.
  for (const auto& channels : kChannels) {
    const int side = 3 + turn++ % 6;
    add({side, side + 1, channels[0], channels[1], 3, 3, 1, 1}, most);
    add({side, side, channels[0], channels[1], 3, 3, 2, 1}, most);
  }
  // Every width of a tile of neighbours.
  for (int width = 4; width <= 32; width += 4) add({3, width, 16, 16, 3, 3, 1, 1}, most);
  // Every width of a map whose border is left out, with and without a pixel that the last misses.
  for (int width : {4, 7, 8, 14}) {
    for (int height : {1, 2, 3, 5}) {
      add({height, width, 12, 48, 3, 3, 1, 1}, most);
      for (int odd : {0, 1}) add({2 * height - odd, 2 * width - odd, 8, 32, 3, 3, 2, 1}, most);
    }
  }
  // The deepest sums.
  if (!options.quick) {
    for (const ConvShape& shape :
         {ConvShape{7, 7, 512, 512, 3, 3, 1, 1}, ConvShape{7, 7, 512, 64, 3, 3, 2, 1},
          ConvShape{14, 14, 256, 64, 3, 3, 1, 1}, ConvShape{56, 56, 64, 64, 3, 3, 1, 1},
          ConvShape{12, 12, 512, 64, 3, 3, 1, 1}, ConvShape{7, 7, 512, 512, 1, 1, 1, 0}}) {
      add(shape, int64_t{1} << 27);
    }
  }
  for (int i = 0; i < (options.quick ? 60 : 600); ++i) {
    ConvShape shape{};
    shape.kernel_height = random.between(1, 4) * 2 - 1;
    shape.kernel_width = random.one_in(6) ? random.between(1, 5) : shape.kernel_height;
    shape.height = random.between(1, random.one_in(3) ? 33 : 12);
    shape.width = random.one_in(2) ? shape.height : random.between(1, 29);
    shape.inputs = random.between(1, random.one_in(3) ? 130 : 40);
    shape.outputs = random.between(1, random.one_in(3) ? 130 : 40);
    shape.stride = random.one_in(12) ? 3 : random.between(1, 2);
    shape.pad = random.one_in(3) ? random.between(0, 3) : shape.kernel_height / 2;
    add(shape, most / 4);
  }
  return result;
}

// Codes [height, width, inputs] and weights [outputs, taps, inputs] of a layer.
struct Filling {
  const char* name;
  std::vector<uint8_t> codes;
  std::vector<int8_t> weights;
};

enum FillingKind {
  kRandom,
  kTransform,
  kShortTransform,
  kCoherent,
  kMost,
  kLeast,
  kAlternating,
  kEmpty
};
constexpr int kFillingKinds = kEmpty + 1;

// Signs of the rows of the transforms of F(4x4, 3x3) (Lavin & Gray 2016): inputs and weights whose
// signs match their outer products drive every product sum of the transform domain to its bound.
// F(4x3, 3x3) has others for the inputs of its 3 rows of outputs; those of weights are among these.
constexpr int kInputSigns[6][6] = {{1, 0, -1, 0, 1, 0},  {0, -1, -1, 1, 1, 0}, {0, 1, -1, -1, 1, 0},
                                   {0, -1, -1, 1, 1, 0}, {0, 1, -1, -1, 1, 0}, {0, 1, 0, -1, 0, 1}};
constexpr int kShortInputSigns[5][5] = {
    {1, -1, -1, 1, 0}, {0, -1, -1, 1, 0}, {0, 1, -1, 1, 0}, {0, -1, 0, 1, 0}, {0, 1, -1, -1, 1}};
constexpr int kWeightSigns[6][3] = {{1, 1, 1}, {1, 1, 1},  {1, -1, 1},
                                    {1, 1, 1}, {1, -1, 1}, {1, 1, 1}};

// out_rows: 4 or 3, of a tile.
uint8_t transform_code(int y, int x, int highest, int out_rows) {
  // Every second tile at a spacing of out_rows and 4, the first at -1; each serves another tap.
  const int in_rows = out_rows + 2;
  const int ty = (y + 1) / (2 * out_rows), tx = (x + 1) / 8;
  const int tap = (ty * 5 + tx * 7 + 7) % (in_rows * 6);
  const int iy = (y + 1) % (2 * out_rows), ix = (x + 1) % 8;
  if (iy >= in_rows || ix >= 6) return 0;
  const int down = out_rows == 3 ? kShortInputSigns[tap / 6][iy] : kInputSigns[tap / 6][iy];
  return down * kInputSigns[tap % 6][ix] > 0 ? static_cast<uint8_t>(highest) : 0;
}

Filling filling(FillingKind kind, const ConvShape& shape, bool depthwise, int highest,
                Random& random) {
  static const char* const names[] = {"random",
                                      "transform bound",
                                      "transform bound of 3 rows",
                                      "same in all channels",
                                      "most",
                                      "least",
                                      "alternating",
                                      "all zero"};
  const int depth = depthwise ? 1 : shape.inputs;
  const int taps = shape.kernel_height * shape.kernel_width;
  Filling result{names[kind], {}, {}};
  const auto any_weight = [&] { return static_cast<int8_t>(2 * random.between(0, 3) - 3); };
  for (int y = 0; y < shape.height; ++y) {
    for (int x = 0; x < shape.width; ++x) {
      const int extreme = random.one_in(2) ? highest : 0;
      for (int c = 0; c < shape.inputs; ++c) {
        int code = 0;
        if (kind == kRandom) code = random.between(0, highest);
        if (kind == kTransform) code = transform_code(y, x, highest, 4);
        if (kind == kShortTransform) code = transform_code(y, x, highest, 3);
        if (kind == kCoherent) code = extreme;
        if (kind == kMost || kind == kLeast) code = highest;
        if (kind == kAlternating) code = (c + y + x) % 2 == 0 ? highest : 0;
        result.codes.push_back(static_cast<uint8_t>(code));
      }
    }
  }
  for (int o = 0; o < shape.outputs; ++o) {
    for (int tap = 0; tap < taps; ++tap) {
      const int8_t extreme = random.one_in(2) ? 3 : -3;
      for (int c = 0; c < depth; ++c) {
        int8_t weight = any_weight();
        if (kind == kTransform || kind == kShortTransform) {
          const int ky = tap / shape.kernel_width % 3, kx = tap % shape.kernel_width % 3;
          const int sign = kWeightSigns[o / 6 % 6][ky] * kWeightSigns[o % 6][kx];
          weight = static_cast<int8_t>(sign * 3);
        }
        if (kind == kCoherent) weight = extreme;
        if (kind == kMost) weight = 3;
        if (kind == kLeast) weight = -3;
        if (kind == kAlternating) weight = (c + tap) % 2 == 0 ? 3 : -3;
        result.weights.push_back(weight);
      }
    }
  }
  return result;
}

class ConvolutionCheck {
 public:
  ConvolutionCheck(const Options& options, Record& record, bool depthwise)
      : options_(options),
        record_(record),
        depthwise_(depthwise),
        random_(options.seed * 2 + (depthwise ? 1 : 0)) {
    for_kernels(options, depthwise ? &mbq::LayerKernels::depthwise : &mbq::LayerKernels::conv,
                [&](const mbq::LayerKernels& table, const ConvKernel& kernel, bool last) {
                  kernels_.push_back({&kernel, &record.entry(table.name, kernel.name), last});
                });
  }

  void run() {
    if (kernels_.empty()) return;
    for (const ConvShape& shape : shapes(options_, depthwise_, random_)) check_shape(shape);
  }

 private:
  struct Subject {
    const ConvKernel* kernel;
    Record::Entry* entry;
    bool last;
  };

  void check_shape(const ConvShape& shape) {
    // Small layers with all fillings at all ranges, large ones with fewer.
    const int64_t cost = work(shape, depthwise_);
    const int64_t one = options_.quick ? 1 << 16 : 1 << 18;
    const int range_count = options_.quick ? 2 : cost < one ? 6 : 3;
    const int filling_count = options_.quick || cost > 8 * one ? 2 : cost < one ? kFillingKinds : 3;
    for (int r = 0; r < range_count; ++r) {
      // 2 and 8 bits always.
      const int highest = kHighest[r < 2 || range_count == 6 ? r : random_.between(2, 5)];
      for (int f = 0; f < filling_count; ++f) {
        const int kind = filling_count == kFillingKinds ? f
                         : f == 0                       ? 0
                                                        : random_.between(1, kEmpty);
        check_filling(shape, highest,
                      filling(static_cast<FillingKind>(kind), shape, depthwise_, highest, random_));
      }
    }
  }

  void check_filling(const ConvShape& shape, int highest, Filling filled) {
    const std::vector<uint8_t> packed =
        depthwise_ ? pack_depthwise(shape, filled.weights) : pack(shape, filled.weights);
    if (options_.self_test) filled.weights[0] = static_cast<int8_t>(-filled.weights[0]);
    const std::vector<int64_t> accumulators =
        depthwise_ ? depthwise_convolution(shape, filled.codes, filled.weights)
                   : convolution(shape, filled.codes, filled.weights);
    double total = 0;
    for (int64_t acc : accumulators) total += static_cast<double>(acc < 0 ? -acc : acc);
    const float typical =
        static_cast<float>(1.0 + total / static_cast<double>(accumulators.size()));

    const int border = shape.pad + (random_.one_in(3) ? random_.between(1, 3) : 0);
    const size_t more = random_.one_in(4) ? 4 * random_.between(1, 9) : 0;
    const size_t gap = random_.one_in(4) ? 4 * random_.between(1, 20) : 0;
    const auto make_image = [&] {
      return Image(Image::kInput, shape.height, shape.width, shape.inputs, border, more, gap);
    };
    Image input = make_image(), input_before = make_image();
    input.set_input(filled.codes, random_);
    input_before.copy_from(input);
    const Buffer<uint8_t> payload = copy_of(packed);

    char situation[96];
    std::snprintf(situation, sizeof situation, ", border %d, codes to %d, filled '%s', ", border,
                  highest, filled.name);
    const std::string start = check::describe(shape) + situation;

    const int output_count = options_.quick || accumulators.size() > 20000 ? 1 : 2;
    std::vector<OutputCase> outputs;
    std::vector<Result> expected;
    for (int i = 0; i < output_count; ++i) {
      const OutputKind& kind = kOutputKinds[output_turn_++ % kOutputKindCount];
      outputs.emplace_back(shape, kind, typical, random_.one_in(4), random_);
      expected.push_back(finished(shape, accumulators, outputs.back().layer()));
    }

    for (const Subject& subject : kernels_) {
      if (subject.entry->failures >= Record::kMostFailures) continue;
      const ConvKernel& kernel = *subject.kernel;
      if (!kernel.supports(shape, highest)) {
        if (subject.last) {
          record_.add(*subject.entry, start, "the last of a list has to support every shape");
        }
        continue;
      }
      Buffer<uint8_t> prepared(kernel.prepared_bytes(shape));
      if (prepared.size() > 0) {
        record_.begin(*subject.entry, start + "prepare");
        std::memset(prepared.data(), 0xdb, prepared.size());
        kernel.prepare(shape, payload.data(), prepared.data());
        if (!prepared.guards_intact()) {
          record_.add(*subject.entry, start, "prepare wrote outside its memory");
          continue;
        }
      }
      const std::vector<uint8_t> prepared_before(prepared.data(),
                                                 prepared.data() + prepared.size());
      for (int i = 0; i < output_count; ++i) {
        const Threads threads = static_cast<Threads>(random_.between(0, kThreadsKinds - 1));
        const std::string what = start + outputs[i].describe() + ", " + name_of(threads);
        const mbq::Parallel pool = parallel(threads);
        Buffer<uint8_t> scratch(kernel.scratch_bytes(shape, pool.threads));
        for (size_t b = 0; b < scratch.size(); ++b) scratch[b] = static_cast<uint8_t>(b * 37 + i);
        const mbq::ConvCall call{shape,
                                 input.view(),
                                 payload.data(),
                                 prepared.size() > 0 ? prepared.data() : nullptr,
                                 outputs[i].prepare(random_),
                                 scratch.data()};
        record_.begin(*subject.entry, what);
        kernel.run(call, pool);
        std::string problem = outputs[i].problem(expected[i]);
        if (!scratch.guards_intact()) problem = "wrote outside its scratch";
        if (!payload.guards_intact() || !prepared.guards_intact() ||
            std::memcmp(payload.data(), packed.data(), packed.size()) != 0 ||
            (prepared.size() > 0 &&
             std::memcmp(prepared.data(), prepared_before.data(), prepared.size()) != 0)) {
          problem = "wrote to its weights";
        }
        if (!input.difference(input_before).empty()) problem = "wrote to its input";
        record_.add(*subject.entry, what, problem);
      }
    }
  }

  const Options& options_;
  Record& record_;
  bool depthwise_;
  Random random_;
  std::vector<Subject> kernels_;
  int output_turn_ = 0;
};

}  // namespace

void check_convolutions(const Options& options, Record& record) {
  for (bool depthwise : {false, true}) ConvolutionCheck(options, record, depthwise).run();
}

}  // namespace check
