// Depthwise convolution for ARMv8.0: lanes are channels.

#if defined(__aarch64__)

#include "finish_neon.h"
#include "neon_shared.h"

namespace mbq {
namespace {

constexpr int kPixels = 4;
constexpr int kStartBytes = 32;

// Of a block of 16 channels: start values, then int8 weights [taps][16].
size_t block_bytes(const ConvShape& shape) {
  return kStartBytes + static_cast<size_t>(shape.kernel_height) * shape.kernel_width * 16;
}

// Start values: 128 * sum(w), in int16.
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
      vst1q_s8(reinterpret_cast<int8_t*>(to) + kStartBytes + 16 * tap, weight);
      sums[0] = vaddw_s8(sums[0], vget_low_s8(weight));
      sums[1] = vaddw_high_s8(sums[1], weight);
    }
    for (int half = 0; half < 2; ++half) {
      vst1q_s16(reinterpret_cast<int16_t*>(to) + 8 * half, vshlq_n_s16(sums[half], 7));
    }
  }
}

// Sums in int16 by SMLAL. Codes are centred, so that they fit int8: sum(code * w) = sum((code -
// 128) * w) + 128 * sum(w), border included. The whole sum fits, so that wrapping on the way is
// harmless.
struct Words {
  static constexpr int kBits = 16;
  int16x8_t low, high;

  [[gnu::always_inline]] void start(const uint8_t* block) {
    low = vld1q_s16(reinterpret_cast<const int16_t*>(block));
    high = vld1q_s16(reinterpret_cast<const int16_t*>(block) + 8);
  }
  [[gnu::always_inline]] void add(uint8x16_t codes, int8x16_t weight) {
    const int8x16_t centred = vreinterpretq_s8_u8(veorq_u8(codes, vdupq_n_u8(0x80)));
    low = vmlal_s8(low, vget_low_s8(centred), vget_low_s8(weight));
    high = vmlal_high_s8(high, centred, weight);
  }
  [[gnu::always_inline]] void widen(int32x4_t acc[4]) const {
    acc[0] = vmovl_s16(vget_low_s16(low));
    acc[1] = vmovl_high_s16(low);
    acc[2] = vmovl_s16(vget_low_s16(high));
    acc[3] = vmovl_high_s16(high);
  }
};

// Sums in int8 by MLA, where they fit: 9 taps of 2-bit codes do.
struct Bytes {
  static constexpr int kBits = 8;
  int8x16_t sum;

  [[gnu::always_inline]] void start(const uint8_t*) { sum = vdupq_n_s8(0); }
  [[gnu::always_inline]] void add(uint8x16_t codes, int8x16_t weight) {
    sum = vmlaq_s8(sum, vreinterpretq_s8_u8(codes), weight);
  }
  [[gnu::always_inline]] void widen(int32x4_t acc[4]) const {
    const Words words{vmovl_s8(vget_low_s8(sum)), vmovl_high_s8(sum)};
    words.widen(acc);
  }
};

// `P` neighbouring pixels of an output row.
template <typename Sums, int P>
[[gnu::always_inline]] inline void pixels(const ConvCall& call, const uint8_t* window,
                                          const uint8_t* block, const Finish<16>& finish, int y,
                                          int x) {
  const int height = call.shape.kernel_height, width = call.shape.kernel_width;
  const size_t row = call.input.row, pixel = call.input.pixel;
  const size_t step = call.shape.stride * pixel;
  const int8_t* weights = reinterpret_cast<const int8_t*>(block) + kStartBytes;
  Sums sums[P];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) sums[p].start(block);
  for (int ky = 0; ky < height; ++ky, window += row) {
    const uint8_t* from = window;
    for (int kx = 0; kx < width; ++kx, from += pixel, weights += 16) {
      asm volatile("// LLVM-MCA-BEGIN neon_depthwise_s%c0_%c1x16 %c2" ::"n"(Sums::kBits), "n"(P),
                   "n"(16 * P));
      const int8x16_t weight = vld1q_s8(weights);
#pragma GCC unroll 4
      for (int p = 0; p < P; ++p) sums[p].add(vld1q_u8(from + p * step), weight);
      asm volatile("// LLVM-MCA-END");
    }
  }
  int32x4_t acc[P][4];
#pragma GCC unroll 4
  for (int p = 0; p < P; ++p) sums[p].widen(acc[p]);
  for (int p = 0; p < P; ++p) finish(acc[p], y, x + p);
}

template <typename Sums>
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
        pixels<Sums, kPixels>(call, window, block, finish, y, x);
        window += kPixels * shape.stride * pixel;
      }
      for (; x < shape.out_width(); ++x, window += shape.stride * pixel) {
        pixels<Sums, 1>(call, window, block, finish, y, x);
      }
    }
  }
}

bool supports(const ConvShape& shape, int) {
  return shape.kernel_height <= kMaxDepthwiseKernel && shape.kernel_width <= kMaxDepthwiseKernel;
}

bool fits_bytes(const ConvShape& shape, int highest) {
  return supports(shape, highest) && shape.kernel_height * shape.kernel_width * 3 * highest <= 127;
}

size_t prepared_bytes(const ConvShape& shape) {
  return round_up(shape.outputs, 16) / 16 * block_bytes(shape);
}

size_t scratch_bytes(const ConvShape&, int) { return 0; }

template <typename Sums>
void run(const ConvCall& call, const Parallel& parallel) {
  parallel.run(parallel.self, call.shape.out_height(), rows<Sums>, const_cast<ConvCall*>(&call));
}

}  // namespace

const ConvKernel kNeonDepthwiseBytes{"u2s2_depthwise_direct_mla_4x16__neon",
                                     fits_bytes,
                                     prepared_bytes,
                                     prepare,
                                     scratch_bytes,
                                     run<Bytes>};
const ConvKernel kNeonDepthwise{"u8s2_depthwise_direct_smlal_4x16__neon",
                                supports,
                                prepared_bytes,
                                prepare,
                                scratch_bytes,
                                run<Words>};

}  // namespace mbq

#endif
