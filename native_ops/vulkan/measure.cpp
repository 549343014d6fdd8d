#include "measure.h"

#include <algorithm>
#include <cmath>
#include <optional>

#include "../engine/stopwatch.h"
#include "commands.h"

namespace mbq::vulkan {
namespace {

constexpr int kLeastRounds = 3, kMostRounds = 10;
constexpr double kEnough = 100'000;  // microseconds

// The dispatches of all passes.
class Passes {
 public:
  Passes(Device& device, const Plan& plan, const Operands& operands, std::vector<Trial>& trials)
      : device_(device), trials_(trials), clock_(device, static_cast<uint32_t>(2 * trials.size())) {
    for (Trial& trial : trials) {
      trial.least.assign(trial.variants.size(), INFINITY);
      count_ = std::max(count_, trial.variants.size());
    }
    std::vector<Bindings::Buffers> buffers;
    for (size_t pass = 0; pass < count_; ++pass) {
      for (const Trial& trial : trials) {
        begins_.push_back(dispatches_.size());
        if (pass >= trial.variants.size()) continue;
        for (const int layer : trial.layers) {
          const Dispatch made = dispatch_of(plan, operands.shape, layer, trial.variants[pass]);
          buffers.push_back(buffers_of(operands, made));
          pipelines_.push_back(device.pipelines().get(made.shader, made.constants));
          dispatches_.push_back(made);
        }
      }
    }
    begins_.push_back(dispatches_.size());
    bindings_.emplace(device, buffers);
  }

  size_t count() const { return count_; }

  void run(size_t pass) {
    device_.run_once([&](VkCommandBuffer commands) { record(commands, pass); });
    if (!clock_.read(0, clock_.count())) return;
    for (size_t i = 0; i < trials_.size(); ++i) {
      if (pass >= trials_[i].variants.size()) continue;
      const auto begin = static_cast<uint32_t>(2 * i);
      double& least = trials_[i].least[pass];
      least = std::min(least, clock_.microseconds(begin, begin + 1));
    }
  }

 private:
  void record(VkCommandBuffer commands, size_t pass) {
    clock_.reset(commands);
    for (size_t i = 0; i < trials_.size(); ++i) {
      const auto time = static_cast<uint32_t>(2 * i);
      const size_t begin = pass * trials_.size() + i;
      record_wait(device_, commands);
      clock_.note(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, time);
      Hazards hazards;
      for (size_t d = begins_[begin]; d < begins_[begin + 1]; ++d) {
        if (hazards.must_wait(dispatches_[d])) record_wait(device_, commands);
        record_dispatch(device_, commands, dispatches_[d], pipelines_[d], (*bindings_)[d]);
      }
      clock_.note(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, time + 1);
    }
  }

  Device& device_;
  std::vector<Trial>& trials_;
  Clock clock_;
  size_t count_ = 0;
  std::vector<Dispatch> dispatches_;
  std::vector<VkPipeline> pipelines_;
  std::vector<size_t> begins_;  // of the dispatches of each pass and trial
  std::optional<Bindings> bindings_;
};

}  // namespace

void measure(Device& device, const Plan& plan, const Operands& operands,
             std::vector<Trial>& trials) {
  Passes passes(device, plan, operands, trials);
  const Stopwatch all;
  for (int round = 0; round < kMostRounds && (round < kLeastRounds || all.microseconds() < kEnough);
       ++round) {
    for (size_t pass = 0; pass < passes.count(); ++pass) passes.run(pass);
  }
}

}  // namespace mbq::vulkan
