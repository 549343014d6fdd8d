#include "choose.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <sstream>

#include "known_choices.h"
#include "measure.h"
#include "transform.h"

namespace mbq::vulkan {
namespace {

// Layers that take the same time: of one shape, in all branches of a level.
struct Group {
  std::string description;
  std::vector<int> layers;
  Trial trial;  // of the first one of each branch
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
      for_each_conv([&](int i, const PlanLayer&) { set_likely(i, "no clock to measure with"); });
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

  void set_likely(int layer, const char* why) {
    set(layer, likely_variant(plan_, plan_.layers[layer], Algorithm::kDirect), why);
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
        set_likely(i, "allows no other");
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
        group.trial.layers.push_back(i);
      }
      group.layers.push_back(i);
    });
    std::vector<Group> unknown;
    for (auto& [text, group] : groups) {
      group.description = text;
      group.trial.variants = possible_variants(plan_.layers[group.layers.front()]);
      const auto known = device_.known_choices().find(text);
      const auto& variants = group.trial.variants;
      const auto found = std::find_if(variants.begin(), variants.end(), [&](const Variant& one) {
        return known && one.name() == *known;
      });
      if (found == variants.end()) {
        unknown.push_back(group);
      } else {
        for (const int layer : group.layers) set(layer, *found, "measured earlier");
      }
    }
    if (!unknown.empty()) try_out(unknown);
  }

  std::vector<Variant> possible_variants(const PlanLayer& layer) const {
    std::vector<Variant> possible = all_variants();
    std::erase_if(possible, [&](const Variant& one) {
      return !allows(layer, one) || (low_memory_ && transforms(one));
    });
    return possible;
  }

  void try_out(std::vector<Group>& groups) {
    std::vector<Trial> trials;
    for (Group& group : groups) {
      // Without memory for transformed weights the variants that need them are none.
      if (!transform_for(group.trial)) std::erase_if(group.trial.variants, transforms);
      trials.push_back(group.trial);
    }
    measure(device_, plan_, operands_, trials);
    std::map<std::string, std::string> measured;
    for (size_t i = 0; i < groups.size(); ++i) {
      const std::vector<double>& times = trials[i].least;
      const auto least = std::min_element(times.begin(), times.end());
      const Variant& fastest = trials[i].variants[least - times.begin()];
      const bool known = std::isfinite(*least);  // else the driver gave no times
      if (known) measured[groups[i].description] = fastest.name();
      for (const int layer : groups[i].layers) {
        if (known) {
          set(layer, fastest, "measured");
        } else {
          set_likely(layer, "no times from the clock");
        }
      }
    }
    if (!measured.empty()) device_.known_choices().add(measured);
  }

  static bool transforms(const Variant& one) { return one.algorithm == Algorithm::kWinograd; }

  bool transform_for(const Trial& trial) {
    return std::none_of(trial.variants.begin(), trial.variants.end(), transforms) ||
           std::all_of(trial.layers.begin(), trial.layers.end(),
                       [&](int layer) { return transform(layer); });
  }

  // False where the device has no memory for it.
  bool transform(int layer) {
    Part& part = operands_.transformed[layer];
    if (part.buffer != nullptr) return true;
    const size_t bytes = transformed_bytes(plan_.shape(plan_.layers[layer]));
    if (bytes > device_.candidate().limits.maxStorageBufferRange) return false;
    try {
      part = transformed_weights(device_, plan_, layer, operands_);
      return true;
    } catch (const DeviceError&) {
      if (!device_.failure().empty()) throw;
      return false;
    }
  }

  void keep_or_drop_transformed(int layer) {
    const bool needed = transforms(operands_.shape.variants[layer]);
    if (needed && !transform(layer)) {
      set_likely(layer, "no memory for f2x2");
    } else if (!needed) {
      operands_.transformed[layer] = {};
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
