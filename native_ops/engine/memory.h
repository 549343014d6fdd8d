// Memory that programs of one process share: prepared weights and workspaces.

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace mbq {

// Bytes at an address that is a multiple of 64, from the system itself: what is freed is free at
// once, for everybody. Throws std::bad_alloc.
class AlignedMemory {
 public:
  explicit AlignedMemory(size_t size);
  ~AlignedMemory();
  AlignedMemory(const AlignedMemory&) = delete;
  AlignedMemory& operator=(const AlignedMemory&) = delete;

  uint8_t* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  uint8_t* data_;
  size_t size_;
};

using PreparedWeights = std::shared_ptr<const AlignedMemory>;

// The weights that `fill` prepares in `size` bytes, or those that somebody still holds under the
// same name. They go when the last holder lets go.
PreparedWeights prepared_weights(const std::string& name, size_t size,
                                 const std::function<void(void*)>& fill);

// Bytes of prepared weights that are held now, each counted once.
size_t prepared_bytes();

// Bytes of workspaces that are held now, whether a run uses them or not.
size_t workspace_bytes();

// Activations and scratch for one run. Runs borrow one and hand it back, so that there are as many
// as ever ran at the same time, not one for each level. Nobody borrows two.
class Workspace {
 public:
  // At least `size` bytes. If another one is in use: with `scarce` memory it is waited for, else
  // there will be two.
  Workspace(size_t size, bool scarce);
  ~Workspace();
  Workspace(const Workspace&) = delete;
  Workspace& operator=(const Workspace&) = delete;

  uint8_t* data() const { return memory_->data(); }

  // Keeps a workspace of `size` bytes ready while the handle lives.
  using Handle = std::shared_ptr<const size_t>;
  static Handle reserve(size_t size);

 private:
  std::unique_ptr<AlignedMemory> memory_;
};

}  // namespace mbq
