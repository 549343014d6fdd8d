// What is around the convolutions of codes: first convolution, streams to codes, pools, head.

#include <limits>

#include "output_case.h"

namespace check {
namespace {

using mbq::ConvShape;
using mbq::PoolShape;

constexpr int kChannels[] = {1,  2,  3,  4,  5,  8,  15, 16,  17, 24,
                             31, 32, 33, 48, 64, 65, 80, 128, 256};

template <typename Check>
void for_tables(const Options& options, const Check& check) {
  for (const mbq::LayerKernels* const* table = mbq::available_layers(); *table; ++table) {
    if (options.wants_table((*table)->name)) check(**table);
  }
}

Threads any_threads(Random& random) {
  return static_cast<Threads>(random.between(0, kThreadsKinds - 1));
}

std::vector<ConvShape> stem_shapes(const Options& options, Random& random) {
  std::vector<ConvShape> shapes = {{32, 32, 3, 16, 3, 3, 1, 1},   {28, 28, 1, 16, 3, 3, 1, 1},
                                   {32, 32, 3, 64, 7, 7, 2, 3},   {33, 31, 3, 32, 3, 3, 2, 1},
                                   {16, 16, 3, 24, 5, 5, 1, 2},   {1, 1, 3, 64, 7, 7, 2, 3},
                                   {9, 14, 4, 17, 3, 3, 1, 1},    {8, 8, 3, 16, 1, 1, 1, 0},
                                   {21, 21, 3, 64, 11, 11, 4, 2}, {7, 7, 3, 33, 7, 7, 1, 0}};
  if (!options.quick) {
    shapes.push_back({112, 96, 3, 64, 7, 7, 2, 3});
    shapes.push_back({64, 64, 3, 96, 3, 3, 1, 1});
  }
  for (int i = 0; i < (options.quick ? 40 : 400); ++i) {
    const int kernel = random.between(1, 4) * 2 - 1;
    ConvShape shape{random.between(1, 24),
                    random.between(1, 33),
                    random.between(1, 5),
                    random.between(1, 70),
                    kernel,
                    random.one_in(6) ? random.between(1, 7) : kernel,
                    random.between(1, 3),
                    random.between(0, 3)};
    if (random.one_in(3)) shape.inputs = 3;
    if (shape.height + 2 * shape.pad < shape.kernel_height) continue;
    if (shape.width + 2 * shape.pad < shape.kernel_width) continue;
    shapes.push_back(shape);
  }
  return shapes;
}

struct StemFilling {
  const char* name;
  std::vector<uint8_t> image, pad_value;
  std::vector<int16_t> weights;
};

StemFilling stem_filling(const ConvShape& shape, Random& random) {
  static const char* const names[] = {"random", "most", "least", "alternating", "small"};
  const int kind = random.one_in(2) ? 0 : random.between(1, 4);
  StemFilling result{names[kind], {}, {}, {}};
  const int depth = shape.kernel_height * shape.kernel_width * shape.inputs;
  // Sums of 16-bit weights and 255 have to fit 32 bits, also every part of them.
  const int limit = std::min(32767, 2147483647 / (255 * depth));
  for (int i = 0; i < shape.height * shape.width * shape.inputs; ++i) {
    int value = random.between(0, 255);
    if (kind == 1 || kind == 2) value = 255;
    if (kind == 3) value = i % 2 * 255;
    result.image.push_back(static_cast<uint8_t>(value));
  }
  for (int c = 0; c < shape.inputs; ++c) {
    result.pad_value.push_back(static_cast<uint8_t>(kind == 1   ? 255
                                                    : kind == 2 ? 0
                                                                : random.between(0, 255)));
  }
  for (int i = 0; i < depth * shape.outputs; ++i) {
    int weight = random.between(-limit, limit);
    if (kind == 1) weight = limit;
    if (kind == 2) weight = -limit - (limit == 32767 ? 1 : 0);
    if (kind == 3) weight = i % 2 == 0 ? limit : -limit;
    if (kind == 4) weight = random.between(-128, 127);
    result.weights.push_back(static_cast<int16_t>(weight));
  }
  return result;
}

struct StemSubject {
  const mbq::StemKernel* kernel;
  Record::Entry* entry;
  bool last;
};

class StemCase {
 public:
  StemCase(const Options& options, const ConvShape& shape, Random& random)
      : shape_(shape),
        filled_(stem_filling(shape, random)),
        image_(copy_of(filled_.image)),
        pad_value_(copy_of(filled_.pad_value)),
        weights_(copy_of(filled_.weights, sizeof(int16_t))) {
    std::vector<int16_t> expected_weights = filled_.weights;
    if (options.self_test) expected_weights[0] = static_cast<int16_t>(expected_weights[0] ^ 64);
    const auto accumulators =
        first_convolution(shape, filled_.image, expected_weights, filled_.pad_value);
    double total = 0;
    for (int64_t acc : accumulators) total += static_cast<double>(acc < 0 ? -acc : acc);
    const auto typical = static_cast<float>(1.0 + total / static_cast<double>(accumulators.size()));
    const OutputKind& kind = kOutputKinds[random.between(1, kOutputKindCount - 1)];
    output_ = std::make_unique<OutputCase>(shape, kind, typical, random.one_in(4), random);
    expected_ = finished(shape, accumulators, output_->layer());
  }

  void run(const StemSubject& subject, Record& record, Random& random) {
    const mbq::StemKernel& kernel = *subject.kernel;
    const Threads threads = any_threads(random);
    const std::string what = check::describe(shape_) + ", filled '" + filled_.name + "', " +
                             output_->describe() + ", " + name_of(threads);
    if (!kernel.supports(shape_)) {
      if (subject.last) {
        record.add(*subject.entry, what, "the last of a list has to support every shape");
      }
      return;
    }
    record.begin(*subject.entry, what);
    const mbq::Parallel pool = parallel(threads);
    const mbq::StemWeights weights{weights_.data(), pad_value_.data()};
    Buffer<uint8_t> prepared(kernel.prepared_bytes(shape_));
    Buffer<uint8_t> scratch(kernel.scratch_bytes(shape_, pool.threads));
    std::memset(scratch.data(), 0x6d, scratch.size());
    if (prepared.size() > 0) {
      std::memset(prepared.data(), 0xdb, prepared.size());
      kernel.prepare(shape_, weights, prepared.data());
    }
    const std::vector<uint8_t> before(prepared.data(), prepared.data() + prepared.size());
    kernel.run({shape_, image_.data(), weights, prepared.size() > 0 ? prepared.data() : nullptr,
                output_->prepare(random), scratch.data()},
               pool);
    std::string problem = output_->problem(expected_);
    if (!prepared.guards_intact()) problem = "prepare wrote outside its memory";
    if (!scratch.guards_intact()) problem = "wrote outside its scratch";
    if (!image_.guards_intact() || !weights_.guards_intact() || !pad_value_.guards_intact() ||
        std::memcmp(image_.data(), filled_.image.data(), filled_.image.size()) != 0 ||
        std::memcmp(weights_.data(), filled_.weights.data(), filled_.weights.size() * 2) != 0 ||
        !std::equal(before.begin(), before.end(), prepared.data())) {
      problem = "wrote to its image or weights";
    }
    record.add(*subject.entry, what, problem);
  }

 private:
  ConvShape shape_;
  StemFilling filled_;
  Buffer<uint8_t> image_, pad_value_;
  Buffer<int16_t> weights_;
  std::unique_ptr<OutputCase> output_;
  Result expected_;
};

// A pool that fits the image, or none.
PoolShape any_pool(int height, int width, int channels, Random& random) {
  PoolShape pool{height, width, channels, 0, 1, 0};
  const int kernel = random.between(1, 4);
  const int pad = random.between(0, kernel / 2);
  if (std::min(height, width) + 2 * pad < kernel) return pool;
  return {height, width, channels, kernel, random.between(1, 3), pad};
}

std::vector<float> any_floats(size_t count, bool special, Random& random) {
  std::vector<float> values;
  for (size_t i = 0; i < count; ++i) {
    float value = random.one_in(4) ? 0.0f : random.real(-1.0f, 3.0f);
    if (special && random.one_in(10)) {
      value = random.one_in(2) ? std::numeric_limits<float>::infinity()
                               : random.real(-3.0f, 3.0f) * 1e38f;
    }
    values.push_back(value);
  }
  return values;
}

void check_stream(const mbq::LayerKernels& table, Record::Entry& entry, const Options& options,
                  Record& record, Random& random) {
  mbq::StreamCall call{};
  call.height = random.between(1, random.one_in(3) ? 33 : 9);
  call.width = random.between(1, random.one_in(3) ? 29 : 9);
  call.channels = random.pick(kChannels);
  if (random.one_in(2)) call.pool = any_pool(call.height, call.width, call.channels, random);
  call.kept = random.one_in(2) ? call.channels : random.pick(kChannels);
  const bool pooled = call.pool.kernel > 0;
  const int height = pooled ? call.pool.out_height() : call.height;
  const int width = pooled ? call.pool.out_width() : call.width;
  const bool special = random.one_in(4);
  const bool with_stream = random.one_in(2);
  call.code_outputs = random.between(with_stream ? 0 : 1, mbq::kMaxCodeOutputs);

  std::vector<float> values =
      any_floats(static_cast<size_t>(call.height) * call.width * call.channels, special, random);
  // No pool has to know about what is not a number.
  if (special && !pooled) values[values.size() / 2] = std::numeric_limits<float>::quiet_NaN();
  const Buffer<float> input = copy_of(values, sizeof(float));
  call.input = input.data();
  Buffer<float> stream(with_stream ? static_cast<size_t>(height) * width * call.kept : 0,
                       sizeof(float));
  call.stream = with_stream ? stream.data() : nullptr;
  std::vector<Image> images, expected_images;
  for (int k = 0; k < call.code_outputs; ++k) {
    call.codes[k] = random_code_output(special, random);
    const int border = random.between(0, 3);
    const size_t more = random.one_in(3) ? 4 * random.between(1, 5) : 0;
    for (auto* list : {&images, &expected_images}) {
      list->emplace_back(Image::kOutput, height, width, call.kept, border, more, 8);
    }
    images[k].set_output(random);
    expected_images[k].copy_from(images[k]);
    call.codes[k].image = images[k].view();
  }
  std::vector<float> expected_values = values;
  if (options.self_test) expected_values[0] += 1.0f;
  const Result expected = streamed(call, expected_values);

  const Threads threads = any_threads(random);
  char what[256];
  std::snprintf(what, sizeof what,
                "%dx%d, %d channels, %d kept, pool %d stride %d pad %d, %s stream, %d code "
                "outputs%s, %s",
                call.height, call.width, call.channels, call.kept, call.pool.kernel,
                call.pool.stride, call.pool.pad, with_stream ? "a" : "no", call.code_outputs,
                special ? ", special" : "", name_of(threads));
  record.begin(entry, what);
  table.stream(call, parallel(threads));
  std::string problem;
  if (with_stream) problem = difference(stream.data(), expected.stream, "stream");
  for (int k = 0; k < call.code_outputs && problem.empty(); ++k) {
    expected_images[k].write(expected.codes[k]);
    problem = images[k].difference(expected_images[k]);
  }
  if (!stream.guards_intact() || !input.guards_intact()) problem = "wrote outside its output";
  record.add(entry, what, problem);
}

void check_pool(const mbq::LayerKernels& table, Record::Entry& entry, const Options& options,
                Record& record, Random& random) {
  PoolShape pool{};
  while (pool.kernel == 0) {
    pool = any_pool(random.between(1, random.one_in(3) ? 33 : 12), random.between(1, 17),
                    random.pick(kChannels), random);
  }
  std::vector<uint8_t> codes;
  const int highest = random.one_in(2) ? 3 : 255;
  for (int i = 0; i < pool.height * pool.width * pool.channels; ++i) {
    codes.push_back(static_cast<uint8_t>(random.between(0, highest)));
  }
  // The border need not cover the pool's.
  Image input(Image::kInput, pool.height, pool.width, pool.channels, random.between(0, 3),
              random.one_in(2) ? 12 : 0, random.one_in(2) ? 4 : 0);
  input.set_input(codes, random);
  const int border = random.between(0, 3);
  const size_t more = random.one_in(2) ? 4 : 0;
  Image output(Image::kOutput, pool.out_height(), pool.out_width(), pool.channels, border, more, 0);
  Image expected(Image::kOutput, pool.out_height(), pool.out_width(), pool.channels, border, more,
                 0);
  output.set_output(random);
  expected.copy_from(output);
  if (options.self_test) codes[0] ^= 1;
  expected.write(max_pooled(pool, codes));
  const Threads threads = any_threads(random);
  char what[160];
  std::snprintf(what, sizeof what, "%dx%d, %d channels, kernel %d, stride %d, pad %d, %s",
                pool.height, pool.width, pool.channels, pool.kernel, pool.stride, pool.pad,
                name_of(threads));
  record.begin(entry, what);
  table.pool_codes(pool, input.view(), output.view(), parallel(threads));
  record.add(entry, what, output.difference(expected));
}

void check_head(const mbq::LayerKernels& table, Record::Entry& entry, const Options& options,
                Record& record, Random& random) {
  const int count = random.between(1, 4);
  const int pixels = random.one_in(2) ? random.between(1, 8) : random.between(9, 70);
  const int channels = random.one_in(8) ? 512 : random.pick(kChannels);
  const int classes = random.one_in(4) ? 100 : random.between(1, 20);
  const bool mean = random.one_in(2), special = random.one_in(8);
  std::vector<std::vector<float>> values;
  std::vector<Buffer<float>> streams;
  std::vector<const float*> pointers;
  for (int s = 0; s < count; ++s) {
    values.push_back(any_floats(static_cast<size_t>(pixels) * channels, special, random));
    streams.push_back(copy_of(values.back(), sizeof(float)));
    pointers.push_back(streams.back().data());
  }
  const auto weight_values = any_floats(static_cast<size_t>(classes) * channels, false, random);
  const auto bias_values = any_floats(classes, special, random);
  const Buffer<float> weight = copy_of(weight_values, sizeof(float));
  const Buffer<float> bias = copy_of(bias_values, sizeof(float));
  Buffer<float> pooled(2 * channels, sizeof(float)), logits(classes, sizeof(float));
  if (options.self_test) values[0][0] += 1.0f;
  const auto expected =
      classified(values, pixels, channels, weight_values, bias_values, classes, mean);
  const Threads threads = any_threads(random);
  char what[160];
  std::snprintf(what, sizeof what, "%d streams, %d pixels, %d channels, %d classes, %s%s, %s",
                count, pixels, channels, classes, mean ? "mean" : "sum", special ? ", special" : "",
                name_of(threads));
  record.begin(entry, what);
  table.head({pointers.data(), count, pixels, channels, weight.data(), bias.data(), classes, mean,
              pooled.data(), logits.data()},
             parallel(threads));
  std::string problem = difference(logits.data(), expected, "logits");
  if (!pooled.guards_intact() || !logits.guards_intact()) problem = "wrote outside its output";
  record.add(entry, what, problem);
}

// `count` cases of a function that is in every table.
template <typename Check>
void check_function(const Options& options, Record& record, const char* name, int count,
                    const Check& check) {
  for_tables(options, [&](const mbq::LayerKernels& table) {
    if (!options.wants_kernel(name)) return;
    Record::Entry& entry = record.entry(table.name, name);
    Random random(options.seed);
    for (int i = 0; i < count && entry.failures < Record::kMostFailures; ++i) {
      check(table, entry, options, record, random);
    }
  });
}

}  // namespace

void check_stems(const Options& options, Record& record) {
  std::vector<StemSubject> subjects;
  for_tables(options, [&](const mbq::LayerKernels& table) {
    for (const mbq::StemKernel* const* kernel = table.stem; *kernel; ++kernel) {
      if (!options.wants_kernel((*kernel)->name)) continue;
      subjects.push_back({*kernel, &record.entry(table.name, (*kernel)->name), !kernel[1]});
    }
  });
  if (subjects.empty()) return;
  Random random(options.seed);
  for (const ConvShape& shape : stem_shapes(options, random)) {
    for (int i = 0; i < 3; ++i) {
      StemCase one(options, shape, random);
      for (const StemSubject& subject : subjects) {
        if (subject.entry->failures < Record::kMostFailures) one.run(subject, record, random);
      }
    }
  }
}

void check_streams(const Options& options, Record& record) {
  check_function(options, record, "stream", options.quick ? 300 : 3000, check_stream);
}

void check_pools(const Options& options, Record& record) {
  check_function(options, record, "pool_codes", options.quick ? 300 : 3000, check_pool);
}

void check_heads(const Options& options, Record& record) {
  check_function(options, record, "head", options.quick ? 200 : 2000, check_head);
}

}  // namespace check
