#include <cmath>
#include <cstring>

#include "reference.h"

namespace mbq::reference {
namespace {

uint8_t to_code(float value, int lowest, int highest) {
  // Written so that a value that is not a number becomes the lowest code.
  const float low = static_cast<float>(lowest), high = static_cast<float>(highest);
  const float rounded = std::nearbyint(value);
  return static_cast<uint8_t>(!(rounded > low) ? low : rounded > high ? high : rounded);
}

void finish(int32_t acc, int output, size_t position, const ConvOutput& out) {
  // Two statements, two roundings; the build forbids their contraction.
  float value = static_cast<float>(acc) * out.scale[output];
  value += out.bias[output];
  if (out.codes != nullptr) {
    out.codes[position] = to_code(value, out.lowest, out.highest);
    return;
  }
  if (out.residual != nullptr) value += out.residual[position];
  out.stream[position] = out.relu && !(value > 0.0f) ? 0.0f : value;
}

int weight_at(const ConvShape& shape, const uint8_t* payload, int output, int ky, int kx, int c) {
  const int groups_per_pixel = round_up(shape.inputs, kCodesPerByte) / kCodesPerByte;
  const int groups = shape.kernel_height * shape.kernel_width * groups_per_pixel;
  const int group = (ky * shape.kernel_width + kx) * groups_per_pixel + c / kCodesPerByte;
  const size_t block = static_cast<size_t>(output / kOutputBlock);
  const uint8_t byte = payload[(block * groups + group) * kOutputBlock + output % kOutputBlock];
  return 2 * (byte >> (c % kCodesPerByte * 2) & 3) - 3;
}

// Calls `each(input position or -1 outside, ky, kx)` for the window of an output pixel.
template <typename Each>
void for_window(const ConvShape& shape, int oy, int ox, const Each& each) {
  for (int ky = 0; ky < shape.kernel_height; ++ky) {
    for (int kx = 0; kx < shape.kernel_width; ++kx) {
      const int y = oy * shape.stride + ky - shape.pad;
      const int x = ox * shape.stride + kx - shape.pad;
      const bool inside = y >= 0 && y < shape.height && x >= 0 && x < shape.width;
      each(inside ? y * shape.width + x : -1, ky, kx);
    }
  }
}

int code_at(const ConvInput& input, size_t position) {
  if (input.codes != nullptr) return input.codes[position];
  float value = input.stream[position] * input.scale;
  value += input.offset;
  return to_code(value, 0, input.highest);
}

}  // namespace

void conv(const ConvShape& shape, const ConvInput& input, const uint8_t* payload,
          const ConvOutput& output) {
  size_t position = 0;
  for (int oy = 0; oy < shape.out_height(); ++oy) {
    for (int ox = 0; ox < shape.out_width(); ++ox) {
      for (int o = 0; o < shape.outputs; ++o, ++position) {
        int32_t acc = 0;
        for_window(shape, oy, ox, [&](int pixel, int ky, int kx) {
          if (pixel < 0) return;  // padding is code 0
          for (int c = 0; c < shape.inputs; ++c) {
            acc += code_at(input, static_cast<size_t>(pixel) * shape.inputs + c) *
                   weight_at(shape, payload, o, ky, kx, c);
          }
        });
        finish(acc, o, position, output);
      }
    }
  }
}

void depthwise(const ConvShape& shape, const ConvInput& input, const uint8_t* payload,
               const ConvOutput& output) {
  const int taps = shape.kernel_height * shape.kernel_width;
  const size_t groups = round_up(taps, kCodesPerByte) / kCodesPerByte;
  size_t position = 0;
  for (int oy = 0; oy < shape.out_height(); ++oy) {
    for (int ox = 0; ox < shape.out_width(); ++ox) {
      for (int c = 0; c < shape.outputs; ++c, ++position) {
        int32_t acc = 0;
        for_window(shape, oy, ox, [&](int pixel, int ky, int kx) {
          if (pixel < 0) return;  // padding is code 0
          const int tap = ky * shape.kernel_width + kx;
          const size_t group = c / kOutputBlock * groups + tap / kCodesPerByte;
          const uint8_t byte = payload[group * kOutputBlock + c % kOutputBlock];
          const int weight = 2 * (byte >> (tap % kCodesPerByte * 2) & 3) - 3;
          acc += code_at(input, static_cast<size_t>(pixel) * shape.inputs + c) * weight;
        });
        finish(acc, c, position, output);
      }
    }
  }
}

void stem(const ConvShape& shape, const uint8_t* image, const StemWeights& weights,
          const ConvOutput& output) {
  size_t position = 0;
  for (int oy = 0; oy < shape.out_height(); ++oy) {
    for (int ox = 0; ox < shape.out_width(); ++ox) {
      for (int o = 0; o < shape.outputs; ++o, ++position) {
        int32_t acc = 0;
        for_window(shape, oy, ox, [&](int pixel, int ky, int kx) {
          const uint8_t* from = pixel < 0 ? weights.pad_value : image + pixel * shape.inputs;
          const size_t row =
              (static_cast<size_t>(o) * shape.kernel_height + ky) * shape.kernel_width;
          for (int c = 0; c < shape.inputs; ++c) {
            acc += from[c] * weights.weight[(row + kx) * shape.inputs + c];
          }
        });
        finish(acc, o, position, output);
      }
    }
  }
}

namespace {

template <typename T>
void pool(const PoolShape& shape, const T* input, T* output) {
  const size_t channels = shape.channels;
  for (int oy = 0; oy < shape.out_height(); ++oy) {
    for (int ox = 0; ox < shape.out_width(); ++ox, output += channels) {
      const int top = oy * shape.stride - shape.pad, left = ox * shape.stride - shape.pad;
      bool first = true;
      for (int y = top < 0 ? 0 : top; y < top + shape.kernel && y < shape.height; ++y) {
        for (int x = left < 0 ? 0 : left; x < left + shape.kernel && x < shape.width; ++x) {
          const T* const from = input + (static_cast<size_t>(y) * shape.width + x) * channels;
          for (size_t c = 0; c < channels; ++c) {
            output[c] = first || from[c] > output[c] ? from[c] : output[c];
          }
          first = false;
        }
      }
    }
  }
}

}  // namespace

void max_pool(const PoolShape& shape, const uint8_t* input, uint8_t* output) {
  pool(shape, input, output);
}

void max_pool(const PoolShape& shape, const float* input, float* output) {
  pool(shape, input, output);
}

void fit_channels(const float* input, size_t pixels, int from, int to, float* output) {
  const size_t kept = from < to ? from : to;
  for (size_t p = 0; p < pixels; ++p, input += from, output += to) {
    std::memcpy(output, input, kept * sizeof(float));
    for (int c = from; c < to; ++c) output[c] = 0.0f;
  }
}

void head(const float* const* streams, int count, int pixels, int channels, const float* weight,
          const float* bias, int classes, bool mean, float* pooled, float* logits) {
  float* const total = pooled + channels;
  for (int c = 0; c < channels; ++c) pooled[c] = 0.0f;
  for (int s = 0; s < count; ++s) {
    for (int c = 0; c < channels; ++c) total[c] = 0.0f;
    for (int p = 0; p < pixels; ++p) {
      const float* const row = streams[s] + static_cast<size_t>(p) * channels;
      for (int c = 0; c < channels; ++c) total[c] += row[c];
    }
    const float by_pixels = 1.0f / static_cast<float>(pixels);
    for (int c = 0; c < channels; ++c) pooled[c] += total[c] * by_pixels;
  }
  if (mean) {
    const float by_streams = 1.0f / static_cast<float>(count);
    for (int c = 0; c < channels; ++c) pooled[c] *= by_streams;
  }
  for (int n = 0; n < classes; ++n) {
    // Sixteen partial sums, a fixed order that compilers can keep in vectors.
    float partial[16] = {};
    const float* const row = weight + static_cast<size_t>(n) * channels;
    int c = 0;
    for (; c + 16 <= channels; c += 16) {
      for (int lane = 0; lane < 16; ++lane) partial[lane] += pooled[c + lane] * row[c + lane];
    }
    for (int lane = 0; c + lane < channels; ++lane)
      partial[lane] += pooled[c + lane] * row[c + lane];
    float sum = 0.0f;
    for (float value : partial) sum += value;
    logits[n] = sum + bias[n];
  }
}

}  // namespace mbq::reference
