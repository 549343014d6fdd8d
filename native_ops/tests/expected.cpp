#include "expected.h"

#include <cstdio>
#include <cstdlib>

namespace check {
namespace {

// Through memory, so that no compiler keeps more than a float's precision or fuses it with what
// follows.
float rounded(float value) {
  volatile float result = value;
  return result;
}

// Calls each(y, x, ky, kx) for a window, also where it lies outside the image.
template <typename Each>
void for_taps(const mbq::ConvShape& shape, int oy, int ox, const Each& each) {
  for (int ky = 0; ky < shape.kernel_height; ++ky) {
    for (int kx = 0; kx < shape.kernel_width; ++kx) {
      each(oy * shape.stride + ky - shape.pad, ox * shape.stride + kx - shape.pad, ky, kx);
    }
  }
}

template <typename Accumulator>
std::vector<int64_t> for_outputs(const mbq::ConvShape& shape, const Accumulator& accumulator) {
  std::vector<int64_t> result;
  result.reserve(static_cast<size_t>(shape.out_height()) * shape.out_width() * shape.outputs);
  for (int oy = 0; oy < shape.out_height(); ++oy) {
    for (int ox = 0; ox < shape.out_width(); ++ox) {
      for (int o = 0; o < shape.outputs; ++o) result.push_back(accumulator(oy, ox, o));
    }
  }
  return result;
}

bool inside(const mbq::ConvShape& shape, int y, int x) {
  return y >= 0 && y < shape.height && x >= 0 && x < shape.width;
}

}  // namespace

std::vector<int64_t> convolution(const mbq::ConvShape& shape, const std::vector<uint8_t>& codes,
                                 const std::vector<int8_t>& weights) {
  return for_outputs(shape, [&](int oy, int ox, int o) {
    int64_t sum = 0;
    for_taps(shape, oy, ox, [&](int y, int x, int ky, int kx) {
      if (!inside(shape, y, x)) return;  // padding is code 0
      const uint8_t* const code = &codes[(static_cast<size_t>(y) * shape.width + x) * shape.inputs];
      const size_t tap = (static_cast<size_t>(o) * shape.kernel_height + ky) * shape.kernel_width;
      const int8_t* const weight = &weights[(tap + kx) * shape.inputs];
      int part = 0;  // of one pixel, at most 3 * 255 for each input
      for (int c = 0; c < shape.inputs; ++c) part += code[c] * weight[c];
      sum += part;
    });
    return sum;
  });
}

std::vector<int64_t> depthwise_convolution(const mbq::ConvShape& shape,
                                           const std::vector<uint8_t>& codes,
                                           const std::vector<int8_t>& weights) {
  return for_outputs(shape, [&](int oy, int ox, int o) {
    int64_t sum = 0;
    for_taps(shape, oy, ox, [&](int y, int x, int ky, int kx) {
      if (!inside(shape, y, x)) return;
      const size_t at = (static_cast<size_t>(y) * shape.width + x) * shape.inputs + o;
      const size_t tap = (static_cast<size_t>(o) * shape.kernel_height + ky) * shape.kernel_width;
      sum += codes[at] * weights[tap + kx];
    });
    return sum;
  });
}

std::vector<int64_t> first_convolution(const mbq::ConvShape& shape,
                                       const std::vector<uint8_t>& image,
                                       const std::vector<int16_t>& weights,
                                       const std::vector<uint8_t>& pad_value) {
  return for_outputs(shape, [&](int oy, int ox, int o) {
    int64_t sum = 0;
    for_taps(shape, oy, ox, [&](int y, int x, int ky, int kx) {
      const size_t at = (static_cast<size_t>(y) * shape.width + x) * shape.inputs;
      const uint8_t* const pixel = inside(shape, y, x) ? &image[at] : pad_value.data();
      const size_t tap = (static_cast<size_t>(o) * shape.kernel_height + ky) * shape.kernel_width;
      for (int c = 0; c < shape.inputs; ++c) {
        sum += static_cast<int64_t>(pixel[c]) * weights[(tap + kx) * shape.inputs + c];
      }
    });
    return sum;
  });
}

std::vector<uint8_t> pack(const mbq::ConvShape& shape, const std::vector<int8_t>& weights) {
  const size_t taps = static_cast<size_t>(shape.kernel_height) * shape.kernel_width;
  const size_t groups = taps * ((shape.inputs + 3) / 4);
  std::vector<uint8_t> payload(mbq::packed_payload_bytes(shape));
  for (int o = 0; o < shape.outputs; ++o) {
    for (size_t tap = 0; tap < taps; ++tap) {
      for (int c = 0; c < shape.inputs; ++c) {
        const int code = (weights[(o * taps + tap) * shape.inputs + c] + 3) / 2;
        const size_t group = tap * ((shape.inputs + 3) / 4) + c / 4;
        payload[(o / 16 * groups + group) * 16 + o % 16] |=
            static_cast<uint8_t>(code << (c % 4 * 2));
      }
    }
  }
  return payload;
}

std::vector<uint8_t> pack_depthwise(const mbq::ConvShape& shape,
                                    const std::vector<int8_t>& weights) {
  const size_t taps = static_cast<size_t>(shape.kernel_height) * shape.kernel_width;
  std::vector<uint8_t> payload(mbq::depthwise_payload_bytes(shape));
  for (int o = 0; o < shape.outputs; ++o) {
    for (size_t tap = 0; tap < taps; ++tap) {
      const int code = (weights[o * taps + tap] + 3) / 2;
      payload[(o / 16 * ((taps + 3) / 4) + tap / 4) * 16 + o % 16] |=
          static_cast<uint8_t>(code << (tap % 4 * 2));
    }
  }
  return payload;
}

uint8_t to_code(float value, int lowest, int highest) {
  if (std::isnan(value)) return static_cast<uint8_t>(lowest);
  const float whole = std::rint(value);  // halves to even
  if (whole <= static_cast<float>(lowest)) return static_cast<uint8_t>(lowest);
  if (whole >= static_cast<float>(highest)) return static_cast<uint8_t>(highest);
  return static_cast<uint8_t>(whole);
}

Result finished(const mbq::ConvShape& shape, const std::vector<int64_t>& accumulators,
                const mbq::LayerOutput& output) {
  Result result;
  for (size_t i = 0; i < accumulators.size(); ++i) {
    if (accumulators[i] != static_cast<int32_t>(accumulators[i])) {
      std::fprintf(stderr, "kernel_check made an accumulator that does not fit int32\n");
      std::abort();
    }
    const size_t o = i % shape.outputs;
    float x = static_cast<float>(static_cast<int32_t>(accumulators[i]));
    x = rounded(x * output.scale[o]);
    x = rounded(x + output.bias[o]);
    if (output.direct) {
      result.codes[0].push_back(to_code(x, output.codes[0].lowest, output.codes[0].highest));
      continue;
    }
    if (output.residual != nullptr) x = rounded(x + output.residual[i]);
    if (output.relu && !(x > 0.0f)) x = 0.0f;
    if (output.stream != nullptr) result.stream.push_back(x);
    for (int k = 0; k < output.code_outputs; ++k) {
      const mbq::CodeOutput& codes = output.codes[k];
      const float scaled = rounded(x * codes.scale);
      result.codes[k].push_back(
          to_code(rounded(scaled + codes.offset), codes.lowest, codes.highest));
    }
  }
  return result;
}

Result streamed(const mbq::StreamCall& call, const std::vector<float>& input) {
  const std::vector<float> pooled = call.pool.kernel == 0 ? input : max_pooled(call.pool, input);
  Result result;
  for (size_t p = 0; p < pooled.size() / call.channels; ++p) {
    for (int c = 0; c < call.kept; ++c) {
      const float x = c < call.channels ? pooled[p * call.channels + c] : 0.0f;
      if (call.stream != nullptr) result.stream.push_back(x);
      for (int k = 0; k < call.code_outputs; ++k) {
        const mbq::CodeOutput& codes = call.codes[k];
        const float scaled = rounded(x * codes.scale);
        result.codes[k].push_back(
            to_code(rounded(scaled + codes.offset), codes.lowest, codes.highest));
      }
    }
  }
  return result;
}

std::vector<float> classified(const std::vector<std::vector<float>>& streams, int pixels,
                              int channels, const std::vector<float>& weight,
                              const std::vector<float>& bias, int classes, bool mean) {
  std::vector<float> joined(channels);
  const float by_pixels = rounded(1.0f / static_cast<float>(pixels));
  const float by_streams = rounded(1.0f / static_cast<float>(streams.size()));
  for (int c = 0; c < channels; ++c) {
    float sum = 0.0f;
    for (const std::vector<float>& stream : streams) {
      float total = 0.0f;
      for (int p = 0; p < pixels; ++p) {
        total = rounded(total + stream[static_cast<size_t>(p) * channels + c]);
      }
      const float average = rounded(total * by_pixels);
      sum = rounded(sum + average);
    }
    joined[c] = mean ? rounded(sum * by_streams) : sum;
  }
  std::vector<float> logits(classes);
  for (int n = 0; n < classes; ++n) {
    // Channel c belongs to partial sum c % 16; then these from first to last.
    float sum = 0.0f;
    for (int lane = 0; lane < 16; ++lane) {
      float partial = 0.0f;
      for (int c = lane; c < channels; c += 16) {
        const float product = rounded(joined[c] * weight[static_cast<size_t>(n) * channels + c]);
        partial = rounded(partial + product);
      }
      sum = rounded(sum + partial);
    }
    logits[n] = rounded(sum + bias[n]);
  }
  return logits;
}

}  // namespace check
