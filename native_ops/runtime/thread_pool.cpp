#include "thread_pool.h"

#include <algorithm>

namespace mbq {
namespace {

// Some 20 to 40 us: longer than a layer that one thread runs alone, short against a frame.
constexpr int kSpins = 2000;

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

constexpr uint64_t to_be_had(uint64_t job) { return 2 * job; }
constexpr uint64_t taken(uint64_t job) { return 2 * job + 1; }

}  // namespace

ThreadPool::ThreadPool(int threads)
    : parallel_{[](void* self, int count, Parallel::Task task, void* context) {
                  static_cast<ThreadPool*>(self)->run(count, task, context);
                },
                this, threads},
      shares_(threads) {
  for (int index = 1; index < threads; ++index) {
    workers_.emplace_back([this, index] { work(index); });
  }
}

ThreadPool::~ThreadPool() {
  stop_ = true;
  announce(job_ + 1);
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::rouse() {
  // A job without shares: whoever wakes finds nothing, and spins.
  if (sleeping_ > 0) announce(job_ + 1);
}

void ThreadPool::announce(uint64_t job) {
  // Sequentially consistent, as is sleeping_: either this sees who sleeps, or who is about to sleep
  // sees the job.
  job_ = job;
  if (sleeping_ == 0) return;
  {
    const std::lock_guard lock(mutex_);
  }  // who has looked at job_ waits by now
  wake_.notify_all();
}

void ThreadPool::run(int count, Parallel::Task task, void* context) {
  if (threads() == 1 || count < 2) {
    task(context, 0, 0, count);
    return;
  }
  const uint64_t job = job_ + 1;
  count_ = count;
  split_ = std::min(count, threads());
  task_ = task;
  context_ = context;
  unfinished_.store(split_, std::memory_order_relaxed);
  for (int i = 0; i < split_; ++i) {
    shares_[i].state.store(to_be_had(job), std::memory_order_release);
  }
  announce(job);
  take_shares(0, job);
  for (int spins = 0; unfinished_.load(std::memory_order_acquire) != 0; ++spins) {
    // A worker may have lost its core to somebody else; do not keep ours from it.
    if (spins < kSpins) {
      pause();
    } else {
      std::this_thread::yield();
    }
  }
}

void ThreadPool::take_shares(int thread, uint64_t job) {
  for (int i = 0; i < threads(); ++i) {
    Share& share = shares_[(thread + i) % threads()];
    // A worker that comes too late for a job finds another's number here.
    uint64_t state = to_be_had(job);
    if (share.state.load(std::memory_order_relaxed) != state ||
        !share.state.compare_exchange_strong(state, taken(job), std::memory_order_acquire,
                                             std::memory_order_relaxed)) {
      continue;
    }
    const int64_t number = &share - shares_.data();
    task_(context_, thread, static_cast<int>(count_ * number / split_),
          static_cast<int>(count_ * (number + 1) / split_));
    unfinished_.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::work(int index) {
  uint64_t seen = 0;
  while (!stop_) {
    for (int spins = 0; spins < kSpins && job_.load(std::memory_order_acquire) == seen; ++spins) {
      pause();
    }
    if (job_ == seen) {
      std::unique_lock lock(mutex_);
      ++sleeping_;
      wake_.wait(lock, [&] { return job_ != seen; });
      --sleeping_;
    }
    seen = job_;
    take_shares(index, seen);
  }
}

}  // namespace mbq
