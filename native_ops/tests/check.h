// What the parts of kernel_check share: random numbers, memory that notices stray accesses, threads
// and the record of what was checked.

#pragma once

#include <array>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <new>
#include <string>
#include <thread>
#include <vector>

#include "../kernels/layers.h"

namespace check {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool kSanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
inline constexpr bool kSanitized = true;
#else
inline constexpr bool kSanitized = false;
#endif
#else
inline constexpr bool kSanitized = false;
#endif

// splitmix64 (Steele, Lea & Flood 2014): the same numbers on every machine.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}

  uint64_t next() {
    uint64_t z = state_ += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  // low <= result <= high
  int between(int low, int high) {
    return low + static_cast<int>(next() % static_cast<uint64_t>(high - low + 1));
  }
  bool one_in(int count) { return between(1, count) == 1; }
  float real(float low, float high) {
    return low + (high - low) * static_cast<float>(next() >> 40) * 0x1p-24f;
  }
  template <typename T, size_t n>
  T pick(const T (&from)[n]) {
    return from[next() % n];
  }

 private:
  uint64_t state_;
};

// `count` elements between guard bytes that must keep their value; with AddressSanitizer, which
// sees reads too, nothing around them. `skew` bytes before them spoil their alignment.
template <typename T>
class Buffer {
 public:
  explicit Buffer(size_t count = 0, size_t skew = 0)
      : count_(count), before_(kGuard + skew), total_(before_ + count * sizeof(T) + kGuard) {
    void* memory = nullptr;
    if (posix_memalign(&memory, 64, total_ == 0 ? 1 : total_) != 0) throw std::bad_alloc();
    bytes_ = static_cast<uint8_t*>(memory);
    std::memset(bytes_, kGuardValue, total_);
  }
  ~Buffer() { std::free(bytes_); }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  Buffer(Buffer&& from) noexcept
      : count_(from.count_), before_(from.before_), total_(from.total_), bytes_(from.bytes_) {
    from.bytes_ = nullptr;
  }

  T* data() { return reinterpret_cast<T*>(bytes_ + before_); }
  const T* data() const { return reinterpret_cast<const T*>(bytes_ + before_); }
  T& operator[](size_t index) { return data()[index]; }
  const T& operator[](size_t index) const { return data()[index]; }
  size_t size() const { return count_; }

  bool guards_intact() const {
    for (size_t i = 0; i < before_; ++i) {
      if (bytes_[i] != kGuardValue) return false;
    }
    for (size_t i = before_ + count_ * sizeof(T); i < total_; ++i) {
      if (bytes_[i] != kGuardValue) return false;
    }
    return true;
  }

 private:
  static constexpr size_t kGuard = kSanitized ? 0 : 256;  // keeps the alignment
  static constexpr uint8_t kGuardValue = 0xc7;

  size_t count_, before_, total_;
  uint8_t* bytes_;
};

template <typename T>
Buffer<T> copy_of(const std::vector<T>& values, size_t skew = 0) {
  Buffer<T> buffer(values.size(), skew);
  if (!values.empty()) std::memcpy(buffer.data(), values.data(), values.size() * sizeof(T));
  return buffer;
}

// An image of codes in exactly the memory that layers.h promises.
class Image {
 public:
  enum Use { kInput, kOutput };

  // `more` bytes of each pixel and `gap` bytes after each row are unused.
  Image(Use use, int height, int width, int channels, int border, size_t more, size_t gap)
      : height_(height),
        width_(width),
        channels_(channels),
        pixel_(mbq::round_up(channels, 4) + more),
        row_((width + 2 * border) * pixel_ + gap),
        border_(border),
        bytes_(row_ * (height + 2 * border) - gap +
               (use == kInput ? mbq::kCodeSlackRows * row_ + mbq::kCodeSlackBytes : 0)) {}

  mbq::CodeImage view() {
    return {bytes_.data() + border_ * (row_ + pixel_), row_, pixel_, border_};
  }

  // Codes [height, width, channels] within zeros; noise where memory has no meaning.
  void set_input(const std::vector<uint8_t>& codes, Random& random) {
    noise(random);
    for (int y = -border_; y < height_ + border_; ++y) {
      std::memset(at(y, -border_), 0, (width_ + 2 * border_) * pixel_);
    }
    for (int y = 0; y < height_; ++y) {
      for (int x = 0; x < width_; ++x) {
        std::memcpy(at(y, x), &codes[(static_cast<size_t>(y) * width_ + x) * channels_], channels_);
      }
    }
  }

  // Noise, also in the border, which kernels leave alone; zeros after each pixel's channels.
  void set_output(Random& random) {
    noise(random);
    for (int y = 0; y < height_; ++y) {
      for (int x = 0; x < width_; ++x) std::memset(at(y, x) + channels_, 0, pixel_ - channels_);
    }
  }

  // What set_output left, with these codes written.
  void write(const std::vector<uint8_t>& codes) {
    for (int y = 0; y < height_; ++y) {
      for (int x = 0; x < width_; ++x) {
        std::memcpy(at(y, x), &codes[(static_cast<size_t>(y) * width_ + x) * channels_], channels_);
      }
    }
  }

  void copy_from(const Image& other) {
    std::memcpy(bytes_.data(), other.bytes_.data(), bytes_.size());
  }

  // Empty, or the first byte that differs from `expected`.
  std::string difference(const Image& expected) const;

 private:
  void noise(Random& random) {
    for (size_t i = 0; i < bytes_.size(); ++i) bytes_[i] = static_cast<uint8_t>(random.next());
  }
  uint8_t* at(int y, int x) {
    return bytes_.data() + static_cast<size_t>(y + border_) * row_ + (x + border_) * pixel_;
  }

  int height_, width_, channels_;
  size_t pixel_, row_;
  int border_;
  Buffer<uint8_t> bytes_;
};

// Ways to split work; kernels may depend neither on the number of threads nor on the order.
enum Threads { kOneThread, kTwoThreads, kPiecesBackwards, kThreadsKinds };
const char* name_of(Threads threads);
mbq::Parallel parallel(Threads threads);

// Empty, or the first element whose bits differ; any two values that are not numbers are equal.
std::string difference(const float* found, const std::vector<float>& expected, const char* what);

struct Options {
  const char* isa = nullptr;     // only this table
  const char* kernel = nullptr;  // only kernels whose name contains this
  // Of --time: only layers whose name contains this; what they write; whether caches are cold.
  const char* layer = nullptr;
  const char* output = "direct";
  bool cold = false;
  uint64_t seed = 1;
  bool quick = false, self_test = false, verbose = false;

  bool wants_table(const char* name) const { return isa == nullptr || std::strcmp(isa, name) == 0; }
  bool wants_kernel(const char* name) const {
    return kernel == nullptr || std::strstr(name, kernel) != nullptr;
  }
};

// What was checked, for each kernel of each table.
class Record {
 public:
  explicit Record(const Options& options) : options_(options) {}

  struct Entry {
    std::string table, kernel;
    long cases = 0, failures = 0;
  };
  static constexpr long kMostFailures = 3;  // of one kernel; more teach nothing

  // Call it for every kernel that should be exercised.
  Entry& entry(const char* table, const char* kernel);

  // Counts a case. `problem` is empty if it passed.
  void add(Entry& entry, const std::string& description, const std::string& problem);

  // Before a kernel runs: says what ran if the process dies.
  void begin(const Entry& entry, const std::string& description) const;

  // Prints a line for each kernel; whether all of them ran without a failure.
  bool finish() const;

 private:
  const Options& options_;
  std::deque<Entry> entries_;  // which do not move when more come
};

std::string describe(const mbq::ConvShape& shape);

// Calls visit(table) for each table that the options want.
template <typename Visit>
void for_tables(const Options& options, const Visit& visit) {
  for (const mbq::LayerKernels* const* table = mbq::available_layers(); *table; ++table) {
    if (options.wants_table((*table)->name)) visit(**table);
  }
}

// Calls visit(table, kernel, last of its list) for each of a list of kernels. Tables have kernels
// in common: they come once, with the first.
template <typename List, typename Visit>
void for_kernels(const Options& options, List mbq::LayerKernels::* list, const Visit& visit) {
  for_tables(options, [&](const mbq::LayerKernels& table) {
    for (List kernel = table.*list; *kernel; ++kernel) {
      bool known = false;
      for (auto other = mbq::available_layers(); *other != &table; ++other) {
        if (!options.wants_table((*other)->name)) continue;
        for (List theirs = (*other)->*list; *theirs; ++theirs) known |= *theirs == *kernel;
      }
      if (!known && options.wants_kernel((*kernel)->name)) visit(table, **kernel, !kernel[1]);
    }
  });
}

// The same for a function of tables: visit(table).
template <typename Function, typename Visit>
void for_functions(const Options& options, Function mbq::LayerKernels::* function,
                   const Visit& visit) {
  for_tables(options, [&](const mbq::LayerKernels& table) {
    bool known = false;
    for (auto other = mbq::available_layers(); *other != &table; ++other) {
      known |= options.wants_table((*other)->name) && (*other)->*function == table.*function;
    }
    if (!known) visit(table);
  });
}

// The parts of the check. Each covers the tables and kernels that the options want.
void check_convolutions(const Options& options, Record& record);
void check_stems(const Options& options, Record& record);
void check_streams(const Options& options, Record& record);
void check_pools(const Options& options, Record& record);
void check_heads(const Options& options, Record& record);

int time_kernels(const Options& options);

}  // namespace check
