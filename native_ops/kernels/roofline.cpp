#include "roofline.h"

#include <chrono>

#include "layers.h"

namespace mbq {
namespace {

constexpr int kMostRooflines = 8;
constexpr int kTrialRuns = 5;
constexpr int kRuns = 100;
constexpr double kSecondsOfRun = 1e-3;

// Products of an 8-bit code and a weight, summed in 32 bits, as the compiler vectorises them for
// the plainest CPU of this architecture.
constexpr int kLanes = 64;
constexpr int kSteps = 4;

int32_t run_portable(int64_t rounds) {
  int32_t sums[kLanes] = {};
  int16_t codes[kLanes];
  for (int lane = 0; lane < kLanes; ++lane) codes[lane] = static_cast<int16_t>(lane + 1);
  for (int64_t round = 0; round < rounds; ++round) {
    for (int step = 0; step < kSteps; ++step) {
      const auto weight = static_cast<int16_t>((round + step) % 4);
      for (int lane = 0; lane < kLanes; ++lane) sums[lane] += codes[lane] * weight;
    }
  }
  int32_t sum = 0;
  for (const int32_t value : sums) sum += value;
  return sum;
}

constexpr Roofline kPortable{"portable", int64_t{kLanes} * kSteps, run_portable};

struct Available {
  const Roofline* rooflines[kMostRooflines + 1] = {};

  Available() {
    int count = 0;
    rooflines[count++] = &kPortable;
    for (const Roofline* const* family : {x86_rooflines(), arm_rooflines()}) {
      for (; *family != nullptr; ++family) {
        if (find_layers((*family)->name) != nullptr) rooflines[count++] = *family;
      }
    }
  }
};

// The shortest of several runs.
double seconds_of(const Roofline& roofline, int64_t rounds, int runs) {
  using Clock = std::chrono::steady_clock;
  double best = 0;
  for (int run = 0; run < runs; ++run) {
    const auto start = Clock::now();
    volatile int32_t kept = roofline.run(rounds);
    static_cast<void>(kept);
    const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
    if (run == 0 || seconds < best) best = seconds;
  }
  return best;
}

}  // namespace

const Roofline* const* available_rooflines() {
  static const Available available;
  return available.rooflines;
}

double measure_roofline(const Roofline& roofline) {
  int64_t rounds = 64;
  // One run alone may look long enough because another process came in between.
  while (seconds_of(roofline, rounds, kTrialRuns) < kSecondsOfRun) rounds *= 2;
  return static_cast<double>(roofline.macs * rounds) / seconds_of(roofline, rounds, kRuns);
}

}  // namespace mbq
