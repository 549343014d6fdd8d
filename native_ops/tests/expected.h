// The layers as one would write them down: integers in 64 bits, floats one rounding at a time.
// Shares nothing with the kernels but the shapes.

#pragma once

#include <cmath>
#include <cstdint>
#include <vector>

#include "../kernels/layers.h"

namespace check {

// A convolution in plain arrays: codes [height, width, inputs], weights 2q - 3 as
// [outputs, kernel_height, kernel_width, inputs], for depthwise [channels, height, width].
std::vector<int64_t> convolution(const mbq::ConvShape& shape, const std::vector<uint8_t>& codes,
                                 const std::vector<int8_t>& weights);
std::vector<int64_t> depthwise_convolution(const mbq::ConvShape& shape,
                                           const std::vector<uint8_t>& codes,
                                           const std::vector<int8_t>& weights);
std::vector<int64_t> first_convolution(const mbq::ConvShape& shape,
                                       const std::vector<uint8_t>& image,
                                       const std::vector<int16_t>& weights,
                                       const std::vector<uint8_t>& pad_value);

// The same weights as kernels get them: four 2-bit codes in a byte, outputs in blocks of 16.
std::vector<uint8_t> pack(const mbq::ConvShape& shape, const std::vector<int8_t>& weights);
std::vector<uint8_t> pack_depthwise(const mbq::ConvShape& shape,
                                    const std::vector<int8_t>& weights);

uint8_t to_code(float value, int lowest, int highest);

// What a convolution makes of its accumulators, in plain arrays.
struct Result {
  std::vector<float> stream;
  std::vector<uint8_t> codes[mbq::kMaxCodeOutputs];
};
Result finished(const mbq::ConvShape& shape, const std::vector<int64_t>& accumulators,
                const mbq::LayerOutput& output);

template <typename T>
std::vector<T> max_pooled(const mbq::PoolShape& shape, const std::vector<T>& input) {
  std::vector<T> output;
  for (int oy = 0; oy < shape.out_height(); ++oy) {
    for (int ox = 0; ox < shape.out_width(); ++ox) {
      for (int c = 0; c < shape.channels; ++c) {
        bool found = false;
        T best{};
        for (int ky = 0; ky < shape.kernel; ++ky) {
          for (int kx = 0; kx < shape.kernel; ++kx) {
            const int y = oy * shape.stride + ky - shape.pad;
            const int x = ox * shape.stride + kx - shape.pad;
            if (y < 0 || y >= shape.height || x < 0 || x >= shape.width) continue;
            const T value = input[(static_cast<size_t>(y) * shape.width + x) * shape.channels + c];
            if (!found || value > best) best = value;
            found = true;
          }
        }
        output.push_back(best);
      }
    }
  }
  return output;
}

Result streamed(const mbq::StreamCall& call, const std::vector<float>& input);

std::vector<float> classified(const std::vector<std::vector<float>>& streams, int pixels,
                              int channels, const std::vector<float>& weight,
                              const std::vector<float>& bias, int classes, bool mean);

}  // namespace check
