// A stream that is pooled or not and becomes codes, alone and behind the first convolution.

#pragma once

#include "output_case.h"

namespace check {

inline constexpr int kChannels[] = {1,  2,  3,  4,  5,  8,  15, 16,  17, 24,
                                    31, 32, 33, 48, 64, 65, 80, 128, 256};

inline Threads any_threads(Random& random) {
  return static_cast<Threads>(random.between(0, kThreadsKinds - 1));
}

// A pool that fits the image, or none.
inline mbq::PoolShape any_pool(int height, int width, int channels, Random& random) {
  mbq::PoolShape pool{height, width, channels, 0, 1, 0};
  const int kernel = random.between(1, 4);
  const int pad = random.between(0, kernel / 2);
  if (std::min(height, width) + 2 * pad < kernel) return pool;
  return {height, width, channels, kernel, random.between(1, 3), pad};
}

// A call of what makes codes of a stream, random but for its input, with memory for its outputs.
class StreamCase {
 public:
  StreamCase(int height, int width, int channels, const mbq::PoolShape& pool, bool special,
             Random& random) {
    call.height = height;
    call.width = width;
    call.channels = channels;
    call.pool = pool;
    call.kept = random.one_in(2) ? channels : random.pick(kChannels);
    const bool pooled = pool.kernel > 0, with_stream = random.one_in(2);
    const int rows = pooled ? pool.out_height() : height;
    const int columns = pooled ? pool.out_width() : width;
    if (with_stream) {
      stream_ = std::make_unique<Buffer<float>>(static_cast<size_t>(rows) * columns * call.kept,
                                                sizeof(float));
      call.stream = stream_->data();
    }
    call.code_outputs = random.between(with_stream ? 0 : 1, mbq::kMaxCodeOutputs);
    for (int k = 0; k < call.code_outputs; ++k) {
      call.codes[k] = random_code_output(special, random);
      const int border = random.between(0, 3);
      const size_t more = random.one_in(3) ? 4 * random.between(1, 5) : 0;
      for (auto* list : {&images_, &expected_}) {
        list->emplace_back(Image::kOutput, rows, columns, call.kept, border, more, 8);
      }
      images_[k].set_output(random);
      expected_[k].copy_from(images_[k]);
      call.codes[k].image = images_[k].view();
    }
    std::snprintf(what_, sizeof what_,
                  "%dx%d, %d channels, %d kept, pool %d stride %d pad %d, %s stream, %d code "
                  "outputs%s",
                  height, width, channels, call.kept, pool.kernel, pool.stride, pool.pad,
                  with_stream ? "a" : "no", call.code_outputs, special ? ", special" : "");
  }

  const char* describe() const { return what_; }

  std::string problem(const Result& expected) {
    std::string found;
    if (stream_ != nullptr) found = difference(stream_->data(), expected.stream, "stream");
    for (int k = 0; k < call.code_outputs && found.empty(); ++k) {
      expected_[k].write(expected.codes[k]);
      found = images_[k].difference(expected_[k]);
    }
    return stream_ == nullptr || stream_->guards_intact() ? found : "wrote outside its output";
  }

  mbq::StreamCall call{};

 private:
  std::unique_ptr<Buffer<float>> stream_;
  std::vector<Image> images_, expected_;
  char what_[200];
};

}  // namespace check
