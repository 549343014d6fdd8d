// Branches of a level that run at the same time, each on one thread: no layer is split, so that
// threads meet once in a frame and not after every layer.

#pragma once

#include <optional>

#include "placing.h"
#include "plan.h"

namespace mbq {

struct Lanes {
  // Layers begin .. end of the plan, one or more whole branches, run on one thread.
  struct Lane {
    int begin, end;
  };
  std::vector<Lane> lanes;  // at least two, each beginning where the one before ends
  Places places;            // in which lanes do not meet; also right for one layer after the other
  size_t scratch = 0;       // bytes that each needs beside its values; who prepares layers knows

  int begin() const { return lanes.front().begin; }
  int end() const { return lanes.back().end; }
};

// As many lanes of equally many branches as threads can run; branches that are left over come
// behind them. Nothing where there are fewer than two branches, where branches use what another one
// writes, or where their layers are mixed.
std::optional<Lanes> side_by_side(const Plan& plan, int threads);

}  // namespace mbq
