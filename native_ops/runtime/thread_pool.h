// Fork and join for one program: a layer of a small network takes tens of microseconds, so workers
// spin for about as long before they sleep.

#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#include "../kernels/kernels.h"

namespace mbq {

class ThreadPool {
 public:
  // threads: including the one that calls run(); at least 1.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return static_cast<int>(workers_.size()) + 1; }

  // The view that kernels take; lives as long as the pool. One caller at a time.
  const Parallel& parallel() const { return parallel_; }

 private:
  void run(int count, Parallel::Task task, void* context);
  void work(int index);
  void run_share(int index) const;

  Parallel parallel_;
  std::vector<std::thread> workers_;
  std::mutex mutex_;
  std::condition_variable wake_;
  std::atomic<uint32_t> generation_{0};  // of the job below; changes under the mutex
  std::atomic<int> running_{0};          // workers that have not finished it
  bool stop_ = false;
  int count_ = 0;
  Parallel::Task task_ = nullptr;
  void* context_ = nullptr;
};

}  // namespace mbq
