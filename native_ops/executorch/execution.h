// What an operator needs besides its arguments. ExecuTorch calls operators on the thread that
// executes the method and gives them no state, so this is per thread.

#pragma once

#include <string>

#include "../kernels/kernels.h"

namespace mbq {

struct Execution {
  const KernelSet* kernels;  // null: selected_kernels()
  const Parallel* parallel;  // null: this thread alone
  std::string error;         // of the operator that failed last; an error code says too little
};

Execution& execution();

// Runs all pieces on the calling thread.
const Parallel& serial();

}  // namespace mbq
