// What every NEON convolution does with the accumulators of one pixel.
//
// Anonymous: this header is compiled with another target in each translation unit, and a linker
// that merged copies could keep one that another CPU cannot run.

#pragma once

#include <arm_neon.h>
#include <string.h>

#include "../layers.h"

namespace mbq {
namespace {

// vmaxnm and vminnm return the operand that is a number: low where value is none. The limits are
// integers, so clamping before rounding gives the same code.
[[gnu::always_inline]] inline int32x4_t codes_of(float32x4_t value, float32x4_t low,
                                                 float32x4_t high) {
  return vcvtnq_s32_f32(vminnmq_f32(vmaxnmq_f32(value, low), high));
}

// Sixteen values to sixteen codes.
[[gnu::always_inline]] inline uint8x16_t pack_codes(const float32x4_t value[4], float32x4_t low,
                                                    float32x4_t high) {
  // The low half of each element, twice.
  const uint8x16_t first =
      vreinterpretq_u8_s16(vuzp1q_s16(vreinterpretq_s16_s32(codes_of(value[0], low, high)),
                                      vreinterpretq_s16_s32(codes_of(value[1], low, high))));
  const uint8x16_t second =
      vreinterpretq_u8_s16(vuzp1q_s16(vreinterpretq_s16_s32(codes_of(value[2], low, high)),
                                      vreinterpretq_s16_s32(codes_of(value[3], low, high))));
  return vuzp1q_u8(first, second);
}

// The constants of kOutputs consecutive outputs; made once for each block of outputs. The last
// block may hold fewer (count): the rest is computed and not stored.
template <int kOutputs>
struct Finish {
  static constexpr int kVectors = kOutputs / 4;
  const LayerOutput* output;
  int first, count, outputs, width;
  float scale[kOutputs], bias[kOutputs];
  float low[kMaxCodeOutputs], high[kMaxCodeOutputs];

  // factor: a power of two, where accumulators come multiplied by its inverse; exact.
  Finish(const LayerOutput& out, const ConvShape& shape, int first_output, float factor = 1.0f)
      : output(&out), first(first_output), outputs(shape.outputs), width(shape.out_width()) {
    count = outputs - first < kOutputs ? outputs - first : kOutputs;
    for (int i = 0; i < kOutputs; ++i) {
      scale[i] = i < count ? out.scale[first + i] * factor : 0.0f;
      bias[i] = i < count ? out.bias[first + i] : 0.0f;
    }
    for (int i = 0; i < (out.direct ? 1 : out.code_outputs); ++i) {
      low[i] = static_cast<float>(out.codes[i].lowest);
      high[i] = static_cast<float>(out.codes[i].highest);
    }
  }

  // acc: kOutputs accumulators.
  void operator()(const int32x4_t* acc, int y, int x) const {
    float32x4_t value[kVectors];
    for (int i = 0; i < kVectors; ++i) {
      value[i] = vaddq_f32(vmulq_f32(vcvtq_f32_s32(acc[i]), vld1q_f32(scale + 4 * i)),
                           vld1q_f32(bias + 4 * i));
    }
    if (output->direct) {
      store_codes(value, 0, y, x);
      return;
    }
    const size_t position = (static_cast<size_t>(y) * width + x) * outputs + first;
    if (output->residual != nullptr) add(value, output->residual + position);
    if (output->relu) {
      // Zero where value is not a number, as in the definition.
      for (float32x4_t& part : value) part = vmaxnmq_f32(part, vdupq_n_f32(0.0f));
    }
    if (output->stream != nullptr) store(value, output->stream + position);
    for (int i = 0; i < output->code_outputs; ++i) {
      const CodeOutput& codes = output->codes[i];
      float32x4_t scaled[kVectors];
      for (int v = 0; v < kVectors; ++v) {
        scaled[v] = vaddq_f32(vmulq_f32(value[v], vld1q_dup_f32(&codes.scale)),
                              vld1q_dup_f32(&codes.offset));
      }
      store_codes(scaled, i, y, x);
    }
  }

 private:
  void add(float32x4_t value[kVectors], const float* from) const {
    float part[kOutputs];
    if (count != kOutputs) {
      for (int i = 0; i < kOutputs; ++i) part[i] = i < count ? from[i] : 0.0f;
      from = part;
    }
    for (int i = 0; i < kVectors; ++i) value[i] = vaddq_f32(value[i], vld1q_f32(from + 4 * i));
  }

  void store(const float32x4_t value[kVectors], float* to) const {
    float part[kOutputs];
    float* const all = count == kOutputs ? to : part;
    for (int i = 0; i < kVectors; ++i) vst1q_f32(all + 4 * i, value[i]);
    if (count != kOutputs) memcpy(to, part, count * sizeof(float));
  }

  void store_codes(const float32x4_t value[kVectors], int which, int y, int x) const {
    const CodeImage& image = output->codes[which].image;
    uint8_t* const to = image.origin + y * image.row + x * image.pixel + first;
    float32x4_t four[4];
    for (int i = 0; i < 4; ++i) four[i] = value[i < kVectors ? i : kVectors - 1];
    const uint8x16_t packed =
        pack_codes(four, vld1q_dup_f32(low + which), vld1q_dup_f32(high + which));
    if (count == 16) {
      vst1q_u8(to, packed);
    } else if (count == 8) {
      vst1_u8(to, vget_low_u8(packed));
    } else if (count == 4) {
      const uint32_t word = vgetq_lane_u32(vreinterpretq_u32_u8(packed), 0);
      memcpy(to, &word, 4);
    } else {
      uint8_t part[16];
      vst1q_u8(part, packed);
      memcpy(to, part, count);
    }
  }
};

}  // namespace
}  // namespace mbq
