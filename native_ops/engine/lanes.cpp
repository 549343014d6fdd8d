#include "lanes.h"

#include <algorithm>
#include <numeric>
#include <set>

namespace mbq {
namespace {

// Where each branch's layers are, in the plan's order, from the first branch to the last; empty
// where a branch has several stretches. Layers of no branch in between are what the next one begins
// with: its codes of a stream that all of them read.
std::vector<Lanes::Lane> branches_of(const Plan& plan) {
  std::vector<Lanes::Lane> branches;
  std::set<int> seen{0};
  const int count = static_cast<int>(plan.layers.size());
  for (int i = 0; i < count;) {
    const int branch = plan.layers[i].branch, begin = i;
    while (i < count && plan.layers[i].branch == branch) ++i;
    if (branch == 0) continue;
    if (!seen.insert(branch).second) return {};
    branches.push_back({branches.empty() ? begin : branches.back().end, i});
  }
  return branches;
}

constexpr int kSeveral = -1, kNobody = -2;

// What lanes do with a value.
struct Use {
  int lane = kNobody;    // the one that uses it, where no other layer does
  int writer = kNobody;  // the lane, or kSeveral for layers in front of or behind the lanes
  Life life;
};

class Uses {
 public:
  Uses(const Plan& plan, const Lanes& lanes)
      : uses_(plan.values.size()), homes_(plan.values.size()) {
    for (size_t i = 0; i < plan.layers.size(); ++i) {
      const int step = static_cast<int>(i);
      int lane = kSeveral;
      for (size_t k = 0; k < lanes.lanes.size(); ++k) {
        if (lanes.lanes[k].begin <= step && step < lanes.lanes[k].end) lane = static_cast<int>(k);
      }
      for_reads(plan, plan.layers[i], [&](int value) {
        // What another lane writes may not be there yet.
        if (lane >= 0 && uses_[value].writer >= 0 && uses_[value].writer != lane) mixed_ = true;
        use(value, lane, step);
      });
      for_writes(plan.layers[i], [&](int value) {
        // Written twice: by two lanes, or while another one still reads it.
        if (uses_[value].writer != kNobody) mixed_ = true;
        uses_[value].writer = lane;
        use(value, lane, step);
      });
    }
    put_in_place(plan);
    // Who is not a lane's own is there for all of them: nobody knows how far the others are.
    const int last = lanes.end() - 1;
    for (Use& use : uses_) {
      if (use.lane >= 0 || !use.life.meets({lanes.begin(), last})) continue;
      use.life = {std::min(use.life.first, lanes.begin()), std::max(use.life.last, last)};
    }
  }

  bool mixed() const { return mixed_; }

  // The value in whose bytes one lives.
  int home(int value) const { return homes_[value]; }

  bool meet(int a, int b) const {
    const Use &one = uses_[a], &other = uses_[b];
    if (one.lane >= 0 && other.lane >= 0 && one.lane != other.lane) return true;
    return one.life.meets(other.life);
  }

 private:
  void use(int value, int lane, int step) {
    Use& use = uses_[value];
    use.lane = use.lane == kNobody || use.lane == lane ? lane : kSeveral;
    use.life = {use.life.first < 0 ? step : use.life.first, step};
  }

  // As in export/plan.py: a stream that is the sum of another one, which nobody reads afterwards,
  // takes its bytes.
  void put_in_place(const Plan& plan) {
    std::iota(homes_.begin(), homes_.end(), 0);
    for (size_t i = 0; i < plan.layers.size(); ++i) {
      const int from = plan.layers[i].residual, to = plan.layers[i].stream;
      if (from == kNone || to == kNone || uses_[from].lane != uses_[to].lane) continue;
      if (uses_[from].lane < 0 || uses_[from].life.last != static_cast<int>(i)) continue;
      homes_[to] = homes_[from];
      uses_[homes_[from]].life.last = uses_[to].life.last;
    }
  }

  std::vector<Use> uses_;
  std::vector<int> homes_;
  bool mixed_ = false;
};

}  // namespace

std::optional<Lanes> side_by_side(const Plan& plan, int threads) {
  const std::vector<Lanes::Lane> branches = branches_of(plan);
  const int count = std::min(static_cast<int>(branches.size()), threads);
  if (count < 2) return std::nullopt;
  const size_t each = branches.size() / count;
  Lanes result;
  for (int k = 0; k < count; ++k) {
    result.lanes.push_back({branches[k * each].begin, branches[(k + 1) * each - 1].end});
  }
  const Uses uses(plan, result);
  if (uses.mixed()) return std::nullopt;
  std::vector<size_t> sizes;
  const int values = static_cast<int>(plan.values.size());
  for (int i = 0; i < values; ++i) {
    sizes.push_back(uses.home(i) == i ? plan.values[i].bytes() : 0);
  }
  result.places = place(sizes, [&](int a, int b) { return uses.meet(a, b); });
  for (int i = 0; i < values; ++i) {
    result.places.offsets[i] = result.places.offsets[uses.home(i)];
  }
  return result;
}

}  // namespace mbq
