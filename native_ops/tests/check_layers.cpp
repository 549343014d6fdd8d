// What is around the convolutions of codes: streams to codes, pools, head.

#include <limits>

#include "stream_case.h"

namespace check {
namespace {

using mbq::PoolShape;

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
  const int height = random.between(1, random.one_in(3) ? 33 : 9);
  const int width = random.between(1, random.one_in(3) ? 29 : 9);
  const int channels = random.pick(kChannels);
  PoolShape pool{};
  if (random.one_in(2)) pool = any_pool(height, width, channels, random);
  const bool special = random.one_in(4);
  StreamCase one(height, width, channels, pool, special, random);
  std::vector<float> values =
      any_floats(static_cast<size_t>(height) * width * channels, special, random);
  // No pool has to know about what is not a number.
  if (special && pool.kernel == 0) {
    values[values.size() / 2] = std::numeric_limits<float>::quiet_NaN();
  }
  const Buffer<float> input = copy_of(values, sizeof(float));
  one.call.input = input.data();
  if (options.self_test) values[0] += 1.0f;
  const Threads threads = any_threads(random);
  const std::string what = one.describe() + std::string(", ") + name_of(threads);
  record.begin(entry, what);
  table.stream(one.call, parallel(threads));
  std::string problem = one.problem(streamed(one.call, values));
  if (!input.guards_intact()) problem = "wrote outside its output";
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
template <typename Function, typename Check>
void check_function(const Options& options, Record& record, const char* name,
                    Function mbq::LayerKernels::* function, int count, const Check& check) {
  if (!options.wants_kernel(name)) return;
  for_functions(options, function, [&](const mbq::LayerKernels& table) {
    Record::Entry& entry = record.entry(table.name, name);
    Random random(options.seed);
    for (int i = 0; i < count && entry.failures < Record::kMostFailures; ++i) {
      check(table, entry, options, record, random);
    }
  });
}

}  // namespace

void check_streams(const Options& options, Record& record) {
  check_function(options, record, "stream", &mbq::LayerKernels::stream, options.quick ? 300 : 3000,
                 check_stream);
}

void check_pools(const Options& options, Record& record) {
  check_function(options, record, "pool_codes", &mbq::LayerKernels::pool_codes,
                 options.quick ? 300 : 3000, check_pool);
}

void check_heads(const Options& options, Record& record) {
  check_function(options, record, "head", &mbq::LayerKernels::head, options.quick ? 200 : 2000,
                 check_head);
}

}  // namespace check
