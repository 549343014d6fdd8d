// The most that one core could do: multiply-accumulates of 8-bit integers a second, measured with a
// loop that does nothing else and stays in registers. What a kernel reaches is a share of it.
//
// (S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model for
// multicore architectures", 2009; this is its flat part.)

#pragma once

#include <cstdint>

namespace mbq {

// The multiply of one instruction set, named as its kernels are.
struct Roofline {
  const char* name;
  int64_t macs;  // multiply-accumulates of one round
  // Returns a value that depends on every multiply, so that none is left out.
  int32_t (*run)(int64_t rounds);
};

// Of the instruction sets in available_layers(), slowest first. Null after the last.
const Roofline* const* available_rooflines();

// Multiply-accumulates a second on this thread: the best of several short runs, since whatever else
// the machine does only slows a run down. Takes about a tenth of a second.
double measure_roofline(const Roofline& roofline);

// Those of a processor family, null after the last; empty where another is compiled for.
const Roofline* const* x86_rooflines();
const Roofline* const* arm_rooflines();

}  // namespace mbq
