#include "thread_pool.h"

namespace mbq {
namespace {

// About 20 us: longer than the gap between two layers, short against a frame.
constexpr int kSpins = 2000;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

}  // namespace

ThreadPool::ThreadPool(int threads)
    : parallel_{[](void* self, int count, Parallel::Task task, void* context) {
                  static_cast<ThreadPool*>(self)->run(count, task, context);
                },
                this, threads} {
  for (int index = 1; index < threads; ++index) {
    workers_.emplace_back([this, index] { work(index); });
  }
}

ThreadPool::~ThreadPool() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    generation_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::run(int count, Parallel::Task task, void* context) {
  if (workers_.empty() || count < 2) {
    task(context, 0, 0, count);
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    count_ = count;
    task_ = task;
    context_ = context;
    running_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
    generation_.fetch_add(1, std::memory_order_release);
  }
  wake_.notify_all();
  run_share(0);
  for (int spins = 0; running_.load(std::memory_order_acquire) != 0; ++spins) {
    // A worker may have lost its core to somebody else; do not keep ours from it.
    if (spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::work(int index) {
  uint32_t seen = 0;
  while (true) {
    for (int spins = 0; spins < kSpins && generation_.load(std::memory_order_acquire) == seen;
         ++spins) {
      pause();
    }
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [&] { return generation_.load(std::memory_order_relaxed) != seen; });
      seen = generation_.load(std::memory_order_relaxed);
      if (stop_) return;
    }
    run_share(index);
    running_.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::run_share(int index) const {
  const int64_t shares = threads();
  const int begin = static_cast<int>(count_ * index / shares);
  const int end = static_cast<int>(count_ * (index + 1) / shares);
  if (begin < end) task_(context_, index, begin, end);
}

}  // namespace mbq
