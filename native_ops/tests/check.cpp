#include "check.h"

#include <cmath>
#include <csignal>
#include <cstdarg>

#include <unistd.h>

namespace check {
namespace {

char running[1024];

void say_what_ran() {
  // No stdio: the process may be in any state.
  if (write(2, running, std::strlen(running)) < 0) return;
}

void die(int signal) {
  say_what_ran();
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

void run_pieces(int threads, int count, mbq::Parallel::Task task, void* context) {
  for (int index = threads - 1; index >= 0; --index) {
    const int begin = static_cast<int>(static_cast<int64_t>(count) * index / threads);
    const int end = static_cast<int>(static_cast<int64_t>(count) * (index + 1) / threads);
    const int middle = begin + (end - begin) / 3;
    if (middle < end) task(context, index, middle, end);
    if (begin < middle) task(context, index, begin, middle);
  }
}

}  // namespace

std::string Image::difference(const Image& expected) const {
  if (!bytes_.guards_intact()) return "wrote outside the image's memory";
  if (std::memcmp(bytes_.data(), expected.bytes_.data(), bytes_.size()) == 0) return {};
  size_t i = 0;
  while (bytes_[i] == expected.bytes_[i]) ++i;
  const int y = static_cast<int>(i / row_) - border_;
  const int x = static_cast<int>(i % row_ / pixel_) - border_;
  char text[160];
  std::snprintf(text, sizeof text, "code byte at row %d, column %d, channel %d is %d, not %d", y, x,
                static_cast<int>(i % row_ % pixel_), bytes_[i], expected.bytes_[i]);
  return text;
}

std::string difference(const float* found, const std::vector<float>& expected, const char* what) {
  for (size_t i = 0; i < expected.size(); ++i) {
    if (std::isnan(found[i]) && std::isnan(expected[i])) continue;
    if (std::memcmp(&found[i], &expected[i], sizeof(float)) == 0) continue;
    char text[160];
    std::snprintf(text, sizeof text, "%s[%zu] is %a, not %a", what, i,
                  static_cast<double>(found[i]), static_cast<double>(expected[i]));
    return text;
  }
  return {};
}

const char* name_of(Threads threads) {
  static const char* const names[] = {"one thread", "two threads", "three threads backwards"};
  return names[threads];
}

mbq::Parallel parallel(Threads threads) {
  if (threads == kOneThread) {
    return {[](void*, int count, mbq::Parallel::Task task, void* context) {
              task(context, 0, 0, count);
            },
            nullptr, 1};
  }
  if (threads == kTwoThreads) {
    return {[](void*, int count, mbq::Parallel::Task task, void* context) {
              std::thread second([=] { task(context, 1, count / 2, count); });
              if (count > 1) task(context, 0, 0, count / 2);
              second.join();
            },
            nullptr, 2};
  }
  return {[](void*, int count, mbq::Parallel::Task task, void* context) {
            run_pieces(3, count, task, context);
          },
          nullptr, 3};
}

Record::Entry& Record::entry(const char* table, const char* kernel) {
  for (Entry& known : entries_) {
    if (known.table == table && known.kernel == kernel) return known;
  }
  entries_.push_back({table, kernel});
  return entries_.back();
}

void Record::begin(const Entry& entry, const std::string& description) const {
  static const bool installed = [] {
    if (!kSanitized) {
      for (int signal : {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT}) std::signal(signal, die);
    }
    return true;
  }();
  static_cast<void>(installed);
  std::snprintf(running, sizeof running, "while %s %s ran: %s\n", entry.table.c_str(),
                entry.kernel.c_str(), description.c_str());
  if (options_.verbose) say_what_ran();
}

void Record::add(Entry& entry, const std::string& description, const std::string& problem) {
  ++entry.cases;
  if (problem.empty()) return;
  ++entry.failures;
  std::printf("FAIL %s %s: %s: %s\n", entry.table.c_str(), entry.kernel.c_str(),
              description.c_str(), problem.c_str());
  std::fflush(stdout);
}

bool Record::finish() const {
  bool right = true;
  for (const Entry& entry : entries_) {
    const char* verdict = "ok";
    if (entry.failures > 0) verdict = "WRONG";
    if (entry.cases == 0) verdict = "NEVER RAN";
    right = right && entry.failures == 0 && entry.cases > 0;
    std::printf("%-12s %-48s %7ld cases  %s\n", entry.table.c_str(), entry.kernel.c_str(),
                entry.cases, verdict);
  }
  if (entries_.empty()) {
    std::printf("no kernel of that name\n");
    return false;
  }
  return right;
}

std::string describe(const mbq::ConvShape& shape) {
  char text[160];
  std::snprintf(text, sizeof text, "%dx%d, %d -> %d channels, kernel %dx%d, stride %d, pad %d",
                shape.height, shape.width, shape.inputs, shape.outputs, shape.kernel_height,
                shape.kernel_width, shape.stride, shape.pad);
  return text;
}

}  // namespace check

// AddressSanitizer calls it before it ends the process.
extern "C" void __asan_on_error() { check::say_what_ran(); }
