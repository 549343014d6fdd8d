// Depthwise convolution for ARMv8.0: lanes are channels.

#if defined(__aarch64__)

#include "finish_neon.h"
#include "neon_shared.h"

namespace mbq {
namespace {

constexpr int kPixels = 4;

// Of a block of 16 channels: start values, then int8 weights [taps][16].
size_t block_bytes(const ConvShape& shape) {
  return 32 + static_cast<size_t>(shape.kernel_height) * shape.kernel_width * 16;
}

// Codes are centred, so that they fit int8 and SMLAL takes them: acc = sum((code - 128) * w) + 128
// * sum(w), border included. The whole sum fits int16, so that wrapping on the way is harmless.
void prepare(const ConvShape& shape, const uint8_t* payload, void* prepared) {
  const int taps = shape.kernel_height * shape.kernel_width;
  uint8_t* to = static_cast<uint8_t*>(prepared);
  const uint8x16_t three = vdupq_n_u8(3);
  for (int first = 0; first < shape.outputs; first += 16, to += block_bytes(shape)) {
    int16x8_t sums[2] = {};
    uint8x16_t bytes = three;
    for (int tap = 0; tap < taps; ++tap) {
      if (tap % kCodesPerByte == 0) {
        bytes = vld1q_u8(payload);
        payload += kOutputBlock;
      }
      const uint8x16_t codes = vandq_u8(bytes, three);
      const int8x16_t weight = vreinterpretq_s8_u8(vsubq_u8(vaddq_u8(codes, codes), three));
      bytes = vshrq_n_u8(bytes, 2);
      vst1q_s8(reinterpret_cast<int8_t*>(to) + 32 + 16 * tap, weight);
      sums[0] = vaddw_s8(sums[0], vget_low_s8(weight));
      sums[1] = vaddw_high_s8(sums[1], weight);
    }
    for (int half = 0; half < 2; ++half) {
      vst1q_s16(reinterpret_cast<int16_t*>(to) + 8 * half, vshlq_n_s16(sums[half], 7));
    }
  }
}

// `P` neighbouring pixels of an output row.
template <int P>
[[gnu::always_inline]] inline void pixels(const ConvCall& call, const uint8_t* window,
                                          const uint8_t* block, const Finish<16>& finish, int y,
                                          int x) {
  const ConvShape& shape = call.shape;
  const size_t step = shape.stride * call.input.pixel;
  const int16_t* const start = reinterpret_cast<const int16_t*>(block);
  const int8_t* weights = reinterpret_cast<const int8_t*>(block) + 32;
  int16x8_t low[P], high[P];
  for (int p = 0; p < P; ++p) {
    low[p] = vld1q_s16(start);
    high[p] = vld1q_s16(start + 8);
  }
  const uint8x16_t centre = vdupq_n_u8(0x80);
  for (int ky = 0; ky < shape.kernel_height; ++ky, window += call.input.row) {
    const uint8_t* from = window;
    for (int kx = 0; kx < shape.kernel_width; ++kx, from += call.input.pixel, weights += 16) {
      asm volatile("// LLVM-MCA-BEGIN neon_depthwise_4x16 64");
      const int8x16_t weight = vld1q_s8(weights);
      for (int p = 0; p < P; ++p) {
        const int8x16_t codes = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(from + p * step), centre));
        low[p] = vmlal_s8(low[p], vget_low_s8(codes), vget_low_s8(weight));
        high[p] = vmlal_high_s8(high[p], codes, weight);
      }
      asm volatile("// LLVM-MCA-END");
    }
  }
  for (int p = 0; p < P; ++p) {
    const int32x4_t acc[4] = {vmovl_s16(vget_low_s16(low[p])), vmovl_high_s16(low[p]),
                              vmovl_s16(vget_low_s16(high[p])), vmovl_high_s16(high[p])};
    finish(acc, y, x + p);
  }
}

void rows(void* context, int, int begin, int end) {
  const ConvCall& call = *static_cast<const ConvCall*>(context);
  const ConvShape& shape = call.shape;
  const size_t bytes = block_bytes(shape);
  const uint8_t* block = static_cast<const uint8_t*>(call.prepared);
  const ptrdiff_t row = call.input.row, pixel = call.input.pixel;
  for (int first = 0; first < shape.outputs; first += 16, block += bytes) {
    const Finish<16> finish(call.output, shape, first);
    for (int y = begin; y < end; ++y) {
      const uint8_t* window = call.input.origin + first - shape.pad * pixel +
                              (static_cast<ptrdiff_t>(y) * shape.stride - shape.pad) * row;
      int x = 0;
      for (; x + kPixels <= shape.out_width(); x += kPixels) {
        pixels<kPixels>(call, window, block, finish, y, x);
        window += kPixels * shape.stride * pixel;
      }
      for (; x < shape.out_width(); ++x, window += shape.stride * pixel) {
        pixels<1>(call, window, block, finish, y, x);
      }
    }
  }
}

bool supports(const ConvShape& shape, int) {
  return shape.kernel_height <= kMaxDepthwiseKernel && shape.kernel_width <= kMaxDepthwiseKernel;
}

size_t prepared_bytes(const ConvShape& shape) {
  return round_up(shape.outputs, 16) / 16 * block_bytes(shape);
}

size_t scratch_bytes(const ConvShape&, int) { return 0; }

void run(const ConvCall& call, const Parallel& parallel) {
  parallel.run(parallel.self, call.shape.out_height(), rows, const_cast<ConvCall*>(&call));
}

}  // namespace

const ConvKernel kNeonDepthwise{
    "u8s2_depthwise_direct_4x16__neon", supports, prepared_bytes, prepare, scratch_bytes, run};

}  // namespace mbq

#endif
