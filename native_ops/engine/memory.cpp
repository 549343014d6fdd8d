#include "memory.h"

#include <sys/mman.h>

#include <algorithm>
#include <condition_variable>
#include <map>
#include <mutex>
#include <new>

namespace mbq {
namespace {

struct Shared {
  // Of weights: held while some are prepared, for which no run may wait.
  std::mutex preparing;
  std::map<std::string, std::weak_ptr<const AlignedMemory>> weights;

  std::mutex mutex;                                        // of everything else
  std::vector<std::unique_ptr<AlignedMemory>> workspaces;  // that nobody uses now
  std::vector<std::weak_ptr<const size_t>> reservations;
  size_t borrowed = 0;  // bytes of those that somebody uses
  // Who waits for one, in the order in which they came: a frame does not wait for more than one of
  // the layers that are measured beside it.
  std::condition_variable returned;
  uint64_t came = 0, served = 0;

  // Under the mutex: the largest reservation that is still wanted.
  size_t wanted() {
    size_t largest = 0;
    std::erase_if(reservations, [&](const auto& weak) {
      const auto size = weak.lock();
      if (size != nullptr) largest = std::max(largest, *size);
      return size == nullptr;
    });
    return largest;
  }
};

// Never destroyed: programs may be closed while the process ends.
Shared& shared() {
  static Shared* const state = new Shared;
  return *state;
}

}  // namespace

AlignedMemory::AlignedMemory(size_t size) : data_(nullptr), size_(std::max<size_t>(size, 1)) {
  void* const mapped =
      mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapped == MAP_FAILED) throw std::bad_alloc();
  data_ = static_cast<uint8_t*>(mapped);
}

AlignedMemory::~AlignedMemory() { munmap(data_, size_); }

PreparedWeights prepared_weights(const std::string& name, size_t size,
                                 const std::function<void(void*)>& fill) {
  Shared& state = shared();
  const std::lock_guard lock(state.preparing);
  std::erase_if(state.weights, [](const auto& entry) { return entry.second.expired(); });
  auto& entry = state.weights[name];
  PreparedWeights found = entry.lock();
  if (found == nullptr) {
    const auto made = std::make_shared<AlignedMemory>(size);
    fill(made->data());
    entry = found = made;
  }
  return found;
}

size_t prepared_bytes() {
  Shared& state = shared();
  const std::lock_guard lock(state.preparing);
  size_t bytes = 0;
  for (const auto& [name, weak] : state.weights) {
    if (const auto memory = weak.lock()) bytes += memory->size();
  }
  return bytes;
}

size_t workspace_bytes() {
  Shared& state = shared();
  const std::lock_guard lock(state.mutex);
  size_t bytes = state.borrowed;
  for (const auto& memory : state.workspaces) bytes += memory->size();
  return bytes;
}

Workspace::Workspace(size_t size, bool scarce) {
  Shared& state = shared();
  {
    std::unique_lock lock(state.mutex);
    if (scarce) {
      const uint64_t place = state.came++;
      state.returned.wait(lock, [&] { return state.borrowed == 0 && state.served == place; });
      ++state.served;
      state.returned.notify_all();  // for the next, should there be no memory
    }
    auto& free = state.workspaces;
    const auto found = std::find_if(free.begin(), free.end(),
                                    [&](const auto& memory) { return memory->size() >= size; });
    if (found != free.end()) {
      memory_ = std::move(*found);
      free.erase(found);
      state.borrowed += memory_->size();
      return;
    }
    // Too small for what is reserved now; each would never be borrowed again.
    if (!free.empty()) free.pop_back();
    size = std::max(size, state.wanted());
    memory_ = std::make_unique<AlignedMemory>(size);
    state.borrowed += memory_->size();
  }
}

Workspace::~Workspace() {
  Shared& state = shared();
  {
    const std::lock_guard lock(state.mutex);
    state.borrowed -= memory_->size();
    if (memory_->size() >= state.wanted() && !state.reservations.empty()) {
      state.workspaces.push_back(std::move(memory_));
    }
  }
  state.returned.notify_all();
}

Workspace::Handle Workspace::reserve(size_t size) {
  Shared& state = shared();
  Handle handle(new size_t(size), [](const size_t* value) {
    delete value;
    Shared& state = shared();
    const std::lock_guard lock(state.mutex);
    if (state.wanted() == 0) state.workspaces.clear();
  });
  const std::lock_guard lock(state.mutex);
  state.reservations.push_back(handle);
  return handle;
}

}  // namespace mbq
