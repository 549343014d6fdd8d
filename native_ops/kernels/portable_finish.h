// What follows the accumulators in portable.cpp's kernels.

#pragma once

#include <bit>
#include <cstring>

#include "layers.h"

namespace mbq {
namespace {

size_t align(size_t bytes) { return (bytes + 63) / 64 * 64; }

// Rounding after clipping gives the same code, as the bounds are whole; in [0, 255] the addition
// rounds to nearest even and leaves the code in the lowest bits.
uint8_t to_code(float value, float lowest, float highest) {
  const float low = value > lowest ? value : lowest;
  const float clipped = low > highest ? highest : low;
  return static_cast<uint8_t>(std::bit_cast<uint32_t>(clipped + 0x1.8p23f));
}

void write_codes(const float* values, int count, float scale, float offset,
                 const CodeOutput& output, uint8_t* to) {
  const auto lowest = static_cast<float>(output.lowest);
  const auto highest = static_cast<float>(output.highest);
  for (int i = 0; i < count; ++i) {
    const float scaled = values[i] * scale;
    to[i] = to_code(scaled + offset, lowest, highest);
  }
}

uint8_t* pixel_at(const CodeImage& image, int y, int x) {
  return image.origin + static_cast<ptrdiff_t>(y) * static_cast<ptrdiff_t>(image.row) +
         static_cast<ptrdiff_t>(x) * static_cast<ptrdiff_t>(image.pixel);
}

// Turns the accumulators of `count` outputs from `first` of one pixel into what the layer writes.
void finish(const int32_t* sums, const ConvShape& shape, int y, int x, int first, int count,
            const LayerOutput& output) {
  float values[kOutputBlock];
  for (int i = 0; i < count; ++i) {
    const float scaled = static_cast<float>(sums[i]) * output.scale[first + i];
    values[i] = scaled + output.bias[first + i];
  }
  if (output.direct) {
    const auto lowest = static_cast<float>(output.codes[0].lowest);
    const auto highest = static_cast<float>(output.codes[0].highest);
    uint8_t* const to = pixel_at(output.codes[0].image, y, x) + first;
    for (int i = 0; i < count; ++i) to[i] = to_code(values[i], lowest, highest);
    return;
  }
  const size_t at =
      (static_cast<size_t>(y) * shape.out_width() + x) * shape.outputs + static_cast<size_t>(first);
  if (output.residual != nullptr) {
    for (int i = 0; i < count; ++i) values[i] += output.residual[at + i];
  }
  if (output.relu) {
    for (int i = 0; i < count; ++i) values[i] = values[i] > 0.0f ? values[i] : 0.0f;
  }
  if (output.stream != nullptr) std::memcpy(output.stream + at, values, count * sizeof(float));
  for (int k = 0; k < output.code_outputs; ++k) {
    const CodeOutput& codes = output.codes[k];
    write_codes(values, count, codes.scale, codes.offset, codes,
                pixel_at(codes.image, y, x) + first);
  }
}

// What a task over rows needs; scratch is divided among threads.
template <typename Call>
struct Job {
  const Call& call;
  size_t thread_scratch;

  int16_t* scratch(int thread) const {
    return reinterpret_cast<int16_t*>(static_cast<uint8_t*>(call.scratch) +
                                      thread_scratch * static_cast<size_t>(thread));
  }
};

}  // namespace
}  // namespace mbq
