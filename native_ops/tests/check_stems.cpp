// The first convolution, alone and with the pool behind it.

#include "stream_case.h"

namespace check {
namespace {

using mbq::ConvShape;
using mbq::PoolShape;

std::vector<ConvShape> stem_shapes(const Options& options, Random& random) {
  std::vector<ConvShape> shapes = {{32, 32, 3, 16, 3, 3, 1, 1},   {28, 28, 1, 16, 3, 3, 1, 1},
                                   {32, 32, 3, 64, 7, 7, 2, 3},   {33, 31, 3, 32, 3, 3, 2, 1},
                                   {16, 16, 3, 24, 5, 5, 1, 2},   {1, 1, 3, 64, 7, 7, 2, 3},
                                   {9, 14, 4, 17, 3, 3, 1, 1},    {8, 8, 3, 16, 1, 1, 1, 0},
                                   {21, 21, 3, 64, 11, 11, 4, 2}, {7, 7, 3, 33, 7, 7, 1, 0}};
  for (int width = 4; width <= 28; width += 4) shapes.push_back({3, width, 3, 16, 3, 3, 1, 1});
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
  static const char* const names[] = {"random", "most", "least", "alternating"};
  const int kind = random.one_in(2) ? 0 : random.between(1, 3);
  const bool bytes = random.one_in(2);  // some kernels are for weights of 8 bits
  StemFilling result{names[kind], {}, {}, {}};
  const int depth = shape.kernel_height * shape.kernel_width * shape.inputs;
  // Sums of 16-bit weights and 255 have to fit 32 bits, also every part of them.
  const int limit = std::min(bytes ? 127 : 32767, 2147483647 / (255 * depth));
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
    if (kind == 2) weight = -limit - (limit == (bytes ? 127 : 32767) ? 1 : 0);
    if (kind == 3) weight = i % 2 == 0 ? limit : -limit;
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
    accumulators_ = first_convolution(shape, filled_.image, expected_weights, filled_.pad_value);
    double total = 0;
    for (int64_t acc : accumulators_) total += static_cast<double>(acc < 0 ? -acc : acc);
    const auto typical =
        static_cast<float>(1.0 + total / static_cast<double>(accumulators_.size()));
    const OutputKind& kind = kOutputKinds[random.between(1, kOutputKindCount - 1)];
    output_ = std::make_unique<OutputCase>(shape, kind, typical, random.one_in(4), random);
    expected_ = finished(shape, accumulators_, output_->layer());
  }

  void run(const StemSubject& subject, Record& record, Random& random) {
    const mbq::StemKernel& kernel = *subject.kernel;
    const Threads threads = any_threads(random);
    const std::string what = check::describe(shape_) + ", filled '" + filled_.name + "', " +
                             output_->describe() + ", " + name_of(threads);
    const mbq::StemWeights weights{weights_.data(), pad_value_.data()};
    if (!kernel.supports(shape_, weights)) {
      if (subject.last) {
        record.add(*subject.entry, what, "the last of a list has to support every stem");
      }
      return;
    }
    record.begin(*subject.entry, what);
    const mbq::Parallel pool = parallel(threads);
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
    const PoolShape after =
        any_pool(shape_.out_height(), shape_.out_width(), shape_.outputs, random);
    if (kernel.pools != nullptr && after.kernel > 0 && kernel.pools(shape_, after)) {
      run_pooled(subject, prepared, after, record, random);
    }
  }

 private:
  void run_pooled(const StemSubject& subject, const Buffer<uint8_t>& prepared,
                  const PoolShape& pool, Record& record, Random& random) {
    const mbq::StemKernel& kernel = *subject.kernel;
    const Threads threads = any_threads(random);
    const mbq::Parallel workers = parallel(threads);
    StreamCase after(pool.height, pool.width, pool.channels, pool, random.one_in(4), random);
    const std::string what = check::describe(shape_) + ", filled '" + filled_.name + "', then " +
                             after.describe() + ", " + name_of(threads);
    record.begin(*subject.entry, what);
    Buffer<uint8_t> scratch(kernel.pooled_scratch_bytes(shape_, pool, workers.threads));
    std::memset(scratch.data(), 0x6d, scratch.size());
    mbq::LayerOutput stem{};
    stem.scale = output_->layer().scale;
    stem.bias = output_->layer().bias;
    stem.relu = true;
    kernel.run_pooled({shape_,
                       image_.data(),
                       {weights_.data(), pad_value_.data()},
                       prepared.size() > 0 ? prepared.data() : nullptr,
                       stem,
                       scratch.data()},
                      after.call, workers);
    float never_written = 0;
    stem.stream = &never_written;  // the definition is asked for it
    const Result stream = finished(shape_, accumulators_, stem);
    std::string problem = after.problem(streamed(after.call, stream.stream));
    if (!scratch.guards_intact()) problem = "wrote outside its scratch";
    record.add(*subject.entry, what, problem);
  }

  ConvShape shape_;
  StemFilling filled_;
  Buffer<uint8_t> image_, pad_value_;
  Buffer<int16_t> weights_;
  std::vector<int64_t> accumulators_;
  std::unique_ptr<OutputCase> output_;
  Result expected_;
};

}  // namespace

void check_stems(const Options& options, Record& record) {
  std::vector<StemSubject> subjects;
  for_kernels(options, &mbq::LayerKernels::stem,
              [&](const mbq::LayerKernels& table, const mbq::StemKernel& kernel, bool last) {
                subjects.push_back({&kernel, &record.entry(table.name, kernel.name), last});
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

}  // namespace check
