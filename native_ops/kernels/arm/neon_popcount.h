// Convolution by counting bits, for ARMv8.0 cores that add twice as fast as they multiply.
//
// A weight is 2 q - 3 with q = b0 + 2 b1, a code the sum of 2^i a_i. Over a window of K codes
//
//   acc = 2 * sum over i of 2^i * (popcount(b0 & a_i) + 2 * popcount(b1 & a_i)) - 3 * sum(codes),
//
// 128 products of bits for three instructions: AND, CNT and an addition of bytes. Counts of the
// same power of two share an accumulator. At 2 bits that is 12 instructions for 128
// multiply-accumulates, where SMLAL has 16 on half as many pipes. (M. Rastegari et al., "XNOR-Net",
// 2016, for one bit; bit planes after S. Zhou et al., "DoReFa-Net", 2016.)
//
// The image becomes bit planes once; the windows of a strip of pixels are then gathered into rows
// of bits, which all outputs share. Prepared weights stay 2 bits each.
//
// Anonymous for the same reason as finish_neon.h.

#pragma once

#include "finish_neon.h"

namespace mbq {
namespace {

inline constexpr int kChunkBytes = 16;        // 128 bits of a window
inline constexpr int kPlaneSlack = 16;        // copies move 8 bytes and may read as many too many
inline constexpr int kRowStripBytes = 16384;  // of gathered windows, half of an L1 cache

// Bytes of a pixel in one plane, of a window of one plane, and of it filled up.
constexpr int pixel_bits(const ConvShape& shape) { return round_up(shape.inputs, 8) / 8; }
constexpr int window_bits(const ConvShape& shape) {
  return shape.kernel_height * shape.kernel_width * pixel_bits(shape);
}
constexpr int row_bytes(const ConvShape& shape) {
  return round_up(window_bits(shape), kChunkBytes);
}
constexpr size_t plane_bytes(const ConvShape& shape) {
  const size_t pixels =
      static_cast<size_t>(shape.height + 2 * shape.pad) * (shape.width + 2 * shape.pad);
  return (pixels * pixel_bits(shape) + kPlaneSlack + 63) / 64 * 64;  // keeps the alignment
}

template <int kBits>
struct Popcount {
  // Of a gathered window: the planes, then the sum of the codes.
  static constexpr size_t gathered_bytes(const ConvShape& shape) {
    return static_cast<size_t>(kBits) * row_bytes(shape) + kChunkBytes;
  }
  static int strip_pixels(const ConvShape& shape) {
    const int fit = static_cast<int>(kRowStripBytes / gathered_bytes(shape));
    return fit > 1 ? fit : 1;
  }

  struct Walk {
    const ConvCall* call;
    uint8_t* planes;
    uint8_t* strips;
  };

  // The lowest bit of each of 8 bytes: byte i becomes bit i.
  static uint8_t bits_of(uint64_t bytes) {
    return static_cast<uint8_t>((bytes & 0x0101010101010101u) * 0x0102040810204080u >> 56);
  }

  // Rows of the padded image.
  static void pack_rows(void* context, int, int begin, int end) {
    const Walk& walk = *static_cast<const Walk*>(context);
    const ConvShape& shape = walk.call->shape;
    const CodeImage& image = walk.call->input;
    const int bytes = pixel_bits(shape), width = shape.width + 2 * shape.pad;
    const size_t plane = plane_bytes(shape);
    const int past = shape.inputs % 8;
    const uint64_t last = past == 0 ? ~uint64_t{0} : (uint64_t{1} << 8 * past) - 1;
    for (int y = begin; y < end; ++y) {
      uint8_t* to = walk.planes + static_cast<size_t>(y) * width * bytes;
      const uint8_t* pixel =
          image.origin + static_cast<ptrdiff_t>(y - shape.pad) * static_cast<ptrdiff_t>(image.row) -
          shape.pad * static_cast<ptrdiff_t>(image.pixel);
      for (int x = 0; x < width; ++x, pixel += image.pixel) {
        for (int i = 0; i < bytes; ++i, ++to) {
          uint64_t codes;
          memcpy(&codes, pixel + 8 * i, 8);
          if (i == bytes - 1) codes &= last;
          for (int bit = 0; bit < kBits; ++bit) to[bit * plane] = bits_of(codes >> bit);
        }
      }
    }
  }

  // The window of one output pixel. Copies of 8 bytes run past their end, where the next one
  // follows.
  static void gather(const Walk& walk, int y, int x, uint8_t* to) {
    const ConvShape& shape = walk.call->shape;
    const int bytes = pixel_bits(shape), width = shape.width + 2 * shape.pad;
    const int run = shape.kernel_width * bytes;
    const uint8_t* from = walk.planes + (static_cast<size_t>(y) * shape.stride * width +
                                         static_cast<size_t>(x) * shape.stride) *
                                            bytes;
    int32x4_t sum = vdupq_n_s32(0);
    uint8_t* row = to;
    for (int bit = 0; bit < kBits; ++bit, from += plane_bytes(shape), row += row_bytes(shape)) {
      uint8_t* at = row;
      for (int ky = 0; ky < shape.kernel_height; ++ky, at += run) {
        const uint8_t* const line = from + static_cast<size_t>(ky) * width * bytes;
        for (int i = 0; i < run; i += 8) memcpy(at + i, line + i, 8);
      }
      memset(at, 0, row + row_bytes(shape) - at);
      int32x4_t ones = vdupq_n_s32(0);
      for (int i = 0; i < row_bytes(shape); i += kChunkBytes) {
        const uint16x8_t pairs = vpaddlq_u8(vcntq_u8(vld1q_u8(row + i)));
        ones = vreinterpretq_s32_u32(vpadalq_u16(vreinterpretq_u32_s32(ones), pairs));
      }
      sum = vaddq_s32(sum, vshlq_s32(ones, vdupq_n_s32(bit)));
    }
    // After the planes, which the last copy may have run past.
    vst1q_s32(reinterpret_cast<int32_t*>(row), vdupq_n_s32(vaddvq_s32(sum)));
  }

  // acc[o] += sum over the planes and b0, b1 of the counts of 4 outputs, weights
  // [chunk][4 outputs][b0, b1].
  [[gnu::always_inline]] static int32x4_t count(const uint8_t* row, int bytes,
                                                const uint8_t* weights) {
    constexpr int kPowers = kBits + 1;
    constexpr int kMost = 255 / 16;  // chunks until a byte that takes two counts of 8 is full
    uint32x4_t acc = vdupq_n_u32(0);
    for (int begin = 0; begin < bytes; begin += kMost * kChunkBytes) {
      const int all = begin + kMost * kChunkBytes;
      const int end = all < bytes ? all : bytes;
      uint8x16_t sums[4][kPowers];
      for (int o = 0; o < 4; ++o) {
        for (int i = 0; i < kPowers; ++i) sums[o][i] = vdupq_n_u8(0);
      }
      for (int at = begin; at < end; at += kChunkBytes, weights += 8 * kChunkBytes) {
        if (kBits == 2) asm volatile("// LLVM-MCA-BEGIN neon_cnt_u2_1x4 512");
        if (kBits == 3) asm volatile("// LLVM-MCA-BEGIN neon_cnt_u3_1x4 512");
        if (kBits == 4) asm volatile("// LLVM-MCA-BEGIN neon_cnt_u4_1x4 512");
        uint8x16_t planes[kBits];
        for (int i = 0; i < kBits; ++i) planes[i] = vld1q_u8(row + at + i * bytes);
        for (int o = 0; o < 4; ++o) {
          for (int b = 0; b < 2; ++b) {
            const uint8x16_t weight = vld1q_u8(weights + (2 * o + b) * kChunkBytes);
            for (int i = 0; i < kBits; ++i) {
              sums[o][i + b] = vaddq_u8(sums[o][i + b], vcntq_u8(vandq_u8(weight, planes[i])));
            }
          }
        }
        asm volatile("// LLVM-MCA-END");
      }
      uint16x8_t wide[4];
      for (int o = 0; o < 4; ++o) {
        wide[o] = vpaddlq_u8(sums[o][kPowers - 1]);
        for (int i = kPowers - 2; i >= 0; --i) {
          wide[o] = vpadalq_u8(vaddq_u16(wide[o], wide[o]), sums[o][i]);
        }
      }
      acc =
          vpadalq_u16(acc, vpaddq_u16(vpaddq_u16(wide[0], wide[1]), vpaddq_u16(wide[2], wide[3])));
    }
    return vreinterpretq_s32_u32(acc);
  }

  static void pixels(void* context, int thread, int begin, int end) {
    const Walk& walk = *static_cast<const Walk*>(context);
    const ConvCall& call = *walk.call;
    const ConvShape& shape = call.shape;
    const int out_width = shape.out_width(), bytes = row_bytes(shape), most = strip_pixels(shape);
    const size_t gathered = gathered_bytes(shape);
    uint8_t* const strip = walk.strips + thread * most * gathered;
    for (; begin < end; begin += most) {
      const int now = end - begin < most ? end - begin : most;
      for (int i = 0; i < now; ++i) {
        gather(walk, (begin + i) / out_width, (begin + i) % out_width, strip + i * gathered);
      }
      const uint8_t* weights = static_cast<const uint8_t*>(call.prepared);
      for (int first = 0; first < shape.outputs; first += 16, weights += 32 * bytes) {
        const Finish<16> finish(call.output, shape, first);
        for (int i = 0; i < now; ++i) {
          const uint8_t* const row = strip + i * gathered;
          const int32x4_t codes = vld1q_s32(reinterpret_cast<const int32_t*>(row + kBits * bytes));
          const int32x4_t less = vmulq_n_s32(codes, -3);
          int32x4_t acc[4];
          for (int part = 0; part < 4; ++part) {
            const int32x4_t counts = count(row, bytes, weights + 8 * part * bytes);
            acc[part] = vaddq_s32(less, vaddq_s32(counts, counts));
          }
          finish(acc, (begin + i) / out_width, (begin + i) % out_width);
        }
      }
    }
  }

  static bool supports(const ConvShape&, int highest) { return highest < 1 << kBits; }

  static size_t prepared_bytes(const ConvShape& shape) {
    return static_cast<size_t>(round_up(shape.outputs, 16)) * 2 * row_bytes(shape);
  }

  // [4 outputs][chunk][4 outputs][b0, b1] of 128 bits each.
  static void prepare(const ConvShape& shape, const uint8_t* payload, void* prepared) {
    uint8_t* const to = static_cast<uint8_t*>(prepared);
    memset(to, 0, prepared_bytes(shape));
    const int taps = shape.kernel_height * shape.kernel_width;
    const int groups = round_up(shape.inputs, kCodesPerByte) / kCodesPerByte;
    for (int o = 0; o < shape.outputs; ++o) {
      uint8_t* const own = to + static_cast<size_t>(o / 4) * 8 * row_bytes(shape);
      const uint8_t* const from =
          payload + static_cast<size_t>(o / kOutputBlock) * taps * groups * kOutputBlock +
          o % kOutputBlock;
      for (int tap = 0; tap < taps; ++tap) {
        for (int c = 0; c < shape.inputs; ++c) {
          const size_t group = static_cast<size_t>(tap) * groups + c / kCodesPerByte;
          const int q = from[group * kOutputBlock] >> (c % kCodesPerByte * 2);
          const int byte = tap * pixel_bits(shape) + c / 8;
          uint8_t* const chunk = own + static_cast<size_t>(byte / kChunkBytes) * 8 * kChunkBytes +
                                 o % 4 * 2 * kChunkBytes + byte % kChunkBytes;
          chunk[0] = static_cast<uint8_t>(chunk[0] | (q & 1) << c % 8);
          chunk[kChunkBytes] = static_cast<uint8_t>(chunk[kChunkBytes] | (q >> 1 & 1) << c % 8);
        }
      }
    }
  }

  static size_t scratch_bytes(const ConvShape& shape, int threads) {
    return kBits * plane_bytes(shape) + threads * strip_pixels(shape) * gathered_bytes(shape);
  }

  static void run(const ConvCall& call, const Parallel& parallel) {
    const ConvShape& shape = call.shape;
    uint8_t* const planes = static_cast<uint8_t*>(call.scratch);
    Walk walk{&call, planes, planes + kBits * plane_bytes(shape)};
    parallel.run(parallel.self, shape.height + 2 * shape.pad, pack_rows, &walk);
    parallel.run(parallel.self, shape.out_height() * shape.out_width(), pixels, &walk);
  }

  static constexpr ConvKernel kernel(const char* name) {
    return {name, supports, prepared_bytes, prepare, scratch_bytes, run};
  }
};

}  // namespace
}  // namespace mbq
