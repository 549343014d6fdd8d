#include "choose.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <sstream>

#include "../engine/stopwatch.h"
#include "commands.h"
#include "known_choices.h"
#include "transform.h"

namespace mbq::vulkan {
namespace {

// Layers that take the same time: of one shape, in all branches of a level.
struct Group {
  std::string description;
  std::vector<int> layers;
  std::vector<int> timed;  // the first one of each branch: they run side by side
  std::vector<Variant> variants;
  std::vector<double> least;  // microseconds, of each variant
};

class Choosing {
 public:
  Choosing(Device& device, const Plan& plan, bool low_memory, Operands& operands)
      : device_(device), plan_(plan), low_memory_(low_memory), operands_(operands) {
    operands.shape.variants.resize(plan.layers.size());
    operands.shape.chosen.resize(plan.layers.size());
    operands.transformed.resize(plan.layers.size());
  }

  void choose() {
    const char* const wanted = std::getenv("EDGE_VULKAN_CONV");
    if (wanted != nullptr && *wanted != '\0') {
      obey(wanted);
    } else if (!device_.has_clock()) {
      for_each_conv([&](int i, const PlanLayer& layer) {
        set(i, likely_variant(plan_, layer, Algorithm::kDirect), "no clock to measure with");
      });
    } else {
      recall_or_measure();
    }
    for_each_conv([&](int i, const PlanLayer&) { keep_or_drop_transformed(i); });
  }

 private:
  template <typename Each>
  void for_each_conv(const Each& each) const {
    for (size_t i = 0; i < plan_.layers.size(); ++i) {
      if (plan_.layers[i].kind == LayerKind::kConv) each(static_cast<int>(i), plan_.layers[i]);
    }
  }

  void set(int layer, const Variant& variant, const char* why) {
    operands_.shape.variants[layer] = variant;
    operands_.shape.chosen[layer] = why;
  }

  // EDGE_VULKAN_CONV, for every layer that allows it.
  void obey(const std::string& wanted) {
    const std::vector<Variant> all = all_variants();
    const auto named = std::find_if(all.begin(), all.end(),
                                    [&](const Variant& one) { return one.name() == wanted; });
    if (named == all.end() && wanted != "direct" && wanted != "f2x2") {
      std::string names;
      for (const Variant& variant : all) names += ", " + variant.name();
      throw DeviceError("EDGE_VULKAN_CONV: '" + wanted + "' is none of direct, f2x2" + names);
    }
    for_each_conv([&](int i, const PlanLayer& layer) {
      if (named == all.end()) {
        const auto algorithm = wanted == "f2x2" ? Algorithm::kWinograd : Algorithm::kDirect;
        set(i, likely_variant(plan_, layer, algorithm), "asked for");
      } else if (allows(layer, *named)) {
        set(i, *named, "asked for");
      } else {
        set(i, likely_variant(plan_, layer, Algorithm::kDirect), "allows no other");
      }
    });
  }

  // What decides how long a layer takes.
  std::string description(const PlanLayer& layer) const {
    const ConvShape shape = plan_.shape(layer);
    std::ostringstream text;
    text << shape.height << "x" << shape.width << "x" << shape.inputs << " -> " << shape.outputs
         << ", " << shape.kernel_height << "x" << shape.kernel_width << ", stride " << shape.stride
         << ", pad " << shape.pad << ", codes to " << layer.highest << ", "
         << (layer.direct() ? "to codes" : "to values") << (layer.residual != kNone ? " added" : "")
         << (layer.stream != kNone ? " kept" : "") << " and " << layer.code_outputs
         << " kinds of codes, " << branches_of(plan_) << " branches, "
         << (device_.packed_product() ? "packed" : "plain") << (low_memory_ ? ", low memory" : "");
    return text.str();
  }

  void recall_or_measure() {
    std::map<std::string, Group> groups;
    for_each_conv([&](int i, const PlanLayer& layer) {
      Group& group = groups[description(layer)];
      const auto same_branch = [&](int other) {
        return plan_.layers[other].branch == layer.branch;
      };
      if (std::none_of(group.layers.begin(), group.layers.end(), same_branch)) {
        group.timed.push_back(i);
      }
      group.layers.push_back(i);
    });
    std::vector<Group*> unknown;
    for (auto& [text, group] : groups) {
      group.description = text;
      for (const Variant& variant : all_variants()) {
        const bool small = variant.algorithm == Algorithm::kDirect || !low_memory_;
        if (small && allows(plan_.layers[group.layers.front()], variant)) {
          group.variants.push_back(variant);
        }
      }
      const auto known = device_.known_choices().find(text);
      const auto found =
          std::find_if(group.variants.begin(), group.variants.end(),
                       [&](const Variant& one) { return known && one.name() == *known; });
      if (found == group.variants.end()) {
        unknown.push_back(&group);
      } else {
        for (const int layer : group.layers) set(layer, *found, "measured earlier");
      }
    }
    if (!unknown.empty()) measure(unknown);
  }

  void measure(const std::vector<Group*>& groups) {
    for (Group* group : groups) transform_for(*group);
    time(groups);
    std::map<std::string, std::string> measured;
    for (const Group* group : groups) {
      const auto least = std::min_element(group->least.begin(), group->least.end());
      const Variant& fastest = group->variants[least - group->least.begin()];
      for (const int layer : group->layers) set(layer, fastest, "measured");
      measured[group->description] = fastest.name();
    }
    device_.known_choices().add(measured);
  }

  // Without memory for transformed weights the variants that need them are none.
  void transform_for(Group& group) {
    const auto transforms = [](const Variant& one) {
      return one.algorithm == Algorithm::kWinograd;
    };
    if (std::none_of(group.variants.begin(), group.variants.end(), transforms)) return;
    for (const int layer : group.timed) {
      if (transform(layer)) continue;
      std::erase_if(group.variants, transforms);
      return;
    }
  }

  // False where the device has no memory for it.
  bool transform(int layer) {
    Part& part = operands_.transformed[layer];
    if (part.buffer != nullptr) return true;
    try {
      part = transformed_weights(device_, plan_, layer, operands_);
      return true;
    } catch (const DeviceError&) {
      if (!device_.failure().empty()) throw;
      return false;
    }
  }

  void keep_or_drop_transformed(int layer) {
    const bool needed = operands_.shape.variants[layer].algorithm == Algorithm::kWinograd;
    if (needed && !transform(layer)) {
      set(layer, likely_variant(plan_, plan_.layers[layer], Algorithm::kDirect),
          "no memory for f2x2");
    } else if (!needed) {
      operands_.transformed[layer] = {};
    }
  }

  // Every pass runs one variant of every group, so that between two runs of a layer there are all
  // others, as in a frame, and what disturbs the device disturbs all variants. Each counts with its
  // shortest time. The arena holds whatever it holds: no shader's time depends on it.
  void time(const std::vector<Group*>& groups) {
    constexpr int kLeastRounds = 3, kMostRounds = 10;
    constexpr double kEnough = 100'000;  // microseconds
    size_t passes = 0;
    for (Group* group : groups) {
      group->least.assign(group->variants.size(), INFINITY);
      passes = std::max(passes, group->variants.size());
    }
    std::vector<Dispatch> dispatches;
    std::vector<Bindings::Buffers> buffers;
    std::vector<VkPipeline> pipelines;
    std::vector<std::vector<size_t>> first(passes);  // dispatch of each group, by pass
    for (size_t pass = 0; pass < passes; ++pass) {
      for (const Group* group : groups) {
        first[pass].push_back(dispatches.size());
        if (pass >= group->variants.size()) continue;
        for (const int layer : group->timed) {
          const Dispatch made = dispatch_of(plan_, operands_.shape, layer, group->variants[pass]);
          buffers.push_back(buffers_of(operands_, made));
          pipelines.push_back(device_.pipelines().get(made.shader, made.constants));
          dispatches.push_back(made);
        }
      }
      first[pass].push_back(dispatches.size());
    }
    const Bindings bindings(device_, buffers);
    Clock clock(device_, static_cast<uint32_t>(2 * groups.size()));
    const auto run = [&](size_t pass) {
      device_.run_once([&](VkCommandBuffer commands) {
        clock.reset(commands);
        for (size_t g = 0; g < groups.size(); ++g) {
          const auto begin = static_cast<uint32_t>(2 * g);
          record_wait(device_, commands);
          clock.note(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, begin);
          Hazards hazards;
          for (size_t i = first[pass][g]; i < first[pass][g + 1]; ++i) {
            if (hazards.must_wait(dispatches[i])) record_wait(device_, commands);
            record_dispatch(device_, commands, dispatches[i], pipelines[i], bindings[i]);
          }
          clock.note(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, begin + 1);
        }
      });
      if (!clock.read(0, clock.count())) return;
      for (size_t g = 0; g < groups.size(); ++g) {
        if (pass >= groups[g]->variants.size()) continue;
        const auto begin = static_cast<uint32_t>(2 * g);
        double& least = groups[g]->least[pass];
        least = std::min(least, clock.microseconds(begin, begin + 1));
      }
    };
    const Stopwatch all;
    for (int round = 0;
         round < kMostRounds && (round < kLeastRounds || all.microseconds() < kEnough); ++round) {
      for (size_t pass = 0; pass < passes; ++pass) run(pass);
    }
  }

  Device& device_;
  const Plan& plan_;
  bool low_memory_;
  Operands& operands_;
};

}  // namespace

void choose_variants(Device& device, const Plan& plan, bool low_memory, Operands& operands) {
  Choosing(device, plan, low_memory, operands).choose();
}

}  // namespace mbq::vulkan
