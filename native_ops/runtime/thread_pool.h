// Fork and join for one program: a layer of a small network takes a few microseconds, so workers
// spin for a while before they sleep, and nobody waits for a worker that has not come yet.

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

  int threads() const { return static_cast<int>(shares_.size()); }

  // The view that kernels take; lives as long as the pool. One caller at a time.
  const Parallel& parallel() const { return parallel_; }

  // Wakes workers for work that is about to come: waking takes as long as some layers do. Only from
  // the thread that calls run().
  void rouse();

 private:
  // Work is split into shares, at most as many as threads. The thread of a share's number takes it,
  // since its caches know that part of the image from the layer before; or another one that is done
  // with its own, if that is first.
  struct alignas(64) Share {
    std::atomic<uint64_t> state{0};  // of which job, and whether it is taken
  };

  void run(int count, Parallel::Task task, void* context);
  void announce(uint64_t job);
  void work(int index);
  void take_shares(int thread, uint64_t job);

  Parallel parallel_;
  std::vector<Share> shares_;

  // Written by the caller before shares are to be had, read by who has taken one.
  int count_ = 0, split_ = 1;
  Parallel::Task task_ = nullptr;
  void* context_ = nullptr;

  alignas(64) std::atomic<uint64_t> job_{0};    // number of the last one
  alignas(64) std::atomic<int> unfinished_{0};  // shares of it
  alignas(64) std::atomic<int> sleeping_{0};    // workers
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<std::thread> workers_;
};

}  // namespace mbq
