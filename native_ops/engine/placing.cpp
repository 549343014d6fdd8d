#include "placing.h"

#include <algorithm>
#include <numeric>

namespace mbq {

Places place(const std::vector<size_t>& sizes, const std::function<bool(int, int)>& meet) {
  std::vector<int> order(sizes.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return sizes[a] > sizes[b]; });
  Places places{std::vector<size_t>(sizes.size(), 0), 0};
  std::vector<int> placed;
  for (const int value : order) {
    if (sizes[value] == 0) continue;
    std::vector<int> neighbours;
    std::copy_if(placed.begin(), placed.end(), std::back_inserter(neighbours),
                 [&](int other) { return meet(other, value); });
    std::sort(neighbours.begin(), neighbours.end(),
              [&](int a, int b) { return places.offsets[a] < places.offsets[b]; });
    size_t& offset = places.offsets[value];
    for (const int other : neighbours) {
      if (offset + sizes[value] <= places.offsets[other]) break;
      offset = std::max(offset, places.offsets[other] + sizes[other]);
    }
    placed.push_back(value);
    places.bytes = std::max(places.bytes, offset + sizes[value]);
  }
  return places;
}

}  // namespace mbq
