// The first convolution for ARMv8.0: int16 pixels times int16 weights by lane, 4 pixels x 16
// outputs.

#if defined(__aarch64__)

#include "neon_shared.h"
#include "stem_neon.h"

namespace mbq {
namespace {

constexpr int kPixels = 4;
constexpr int kGroup = 4;  // consecutive elements of a kernel row that one load of a pixel brings

// Elements of a kernel row, filled up with weight 0.
int row_elements(const ConvShape& shape) {
  return round_up(shape.kernel_width * shape.inputs, kGroup);
}

size_t block_elements(const ConvShape& shape) {
  return static_cast<size_t>(shape.kernel_height) * row_elements(shape) * 16;
}

// [outputs in blocks of 16][kernel row][element][16 outputs]
void prepare(const ConvShape& shape, const StemWeights& weights, void* prepared) {
  const int present = shape.kernel_width * shape.inputs, padded = row_elements(shape);
  int16_t* to = static_cast<int16_t*>(prepared);
  for (int first = 0; first < shape.outputs; first += 16) {
    for (int ky = 0; ky < shape.kernel_height; ++ky) {
      for (int element = 0; element < padded; ++element) {
        for (int o = first; o < first + 16; ++o) {
          const size_t row = (static_cast<size_t>(o) * shape.kernel_height + ky) * present;
          *to++ =
              o < shape.outputs && element < present ? weights.weight[row + element] : int16_t{0};
        }
      }
    }
  }
}

using Walk = StemWalk<int16_t>;

[[gnu::always_inline]] inline void tile(const int16_t* const from[kPixels], size_t row, int rows,
                                        int elements, const int16_t* weights,
                                        int32x4_t out[kPixels][4]) {
  int32x4_t acc[kPixels][4];
  for (int p = 0; p < kPixels; ++p) {
    for (int v = 0; v < 4; ++v) acc[p][v] = vdupq_n_s32(0);
  }
  for (int ky = 0; ky < rows; ++ky) {
    const int16_t* pixel[kPixels];
    for (int p = 0; p < kPixels; ++p) pixel[p] = from[p] + ky * row;
    for (int i = 0; i < elements; i += kGroup, weights += 16 * kGroup) {
      asm volatile("// LLVM-MCA-BEGIN neon_stem_4x16 256");
      int16x4_t values[kPixels];
      for (int p = 0; p < kPixels; ++p) {
        values[p] = vld1_s16(pixel[p]);
        pixel[p] += kGroup;
      }
#define MBQ_STEP(lane)                                                          \
  for (int half = 0; half < 2; ++half) {                                        \
    const int16x8_t weight = vld1q_s16(weights + 16 * lane + 8 * half);         \
    for (int p = 0; p < kPixels; ++p) {                                         \
      int32x4_t* const sums = acc[p] + 2 * half;                                \
      sums[0] = vmlal_lane_s16(sums[0], vget_low_s16(weight), values[p], lane); \
      sums[1] = vmlal_high_lane_s16(sums[1], weight, values[p], lane);          \
    }                                                                           \
  }
      MBQ_STEP(0)
      MBQ_STEP(1)
      MBQ_STEP(2)
      MBQ_STEP(3)
#undef MBQ_STEP
      asm volatile("// LLVM-MCA-END");
    }
  }
  for (int p = 0; p < kPixels; ++p) {
    for (int v = 0; v < 4; ++v) out[p][v] = acc[p][v];
  }
}

void rows(void* context, int, int begin, int end) {
  const Walk& walk = *static_cast<const Walk*>(context);
  const StemCall& call = *walk.call;
  const ConvShape& shape = call.shape;
  const int16_t* weights = static_cast<const int16_t*>(call.prepared);
  const int out_width = shape.out_width();
  for (int first = 0; first < shape.outputs; first += 16, weights += block_elements(shape)) {
    const Finish<16> finish(call.output, shape, first);
    for (int y = begin; y < end; ++y) {
      const int16_t* const top = walk.image + static_cast<size_t>(y) * shape.stride * walk.row;
      for (int x = 0; x < out_width; x += kPixels) {
        // The last tile of a row computes its last pixel more than once.
        const int16_t* from[kPixels];
        for (int p = 0; p < kPixels; ++p) {
          const int wanted = x + p < out_width ? x + p : out_width - 1;
          from[p] = top + static_cast<size_t>(wanted) * shape.stride * shape.inputs;
        }
        int32x4_t acc[kPixels][4];
        tile(from, walk.row, shape.kernel_height, row_elements(shape), weights, acc);
        for (int p = 0; p < kPixels && x + p < out_width; ++p) finish(acc[p], y, x + p);
      }
    }
  }
}

bool supports(const ConvShape&, const StemWeights&) { return true; }

size_t prepared_bytes(const ConvShape& shape) {
  return round_up(shape.outputs, 16) / 16 * block_elements(shape) * sizeof(int16_t);
}

size_t scratch_bytes(const ConvShape& shape, int) { return padded_bytes<int16_t>(shape); }

void run(const StemCall& call, const Parallel& parallel) {
  Walk walk = pad_image<int16_t>(call, parallel);
  parallel.run(parallel.self, call.shape.out_height(), rows, &walk);
}

}  // namespace

const StemKernel kNeonStem{
    "u8s16_stem_direct_4x16__neon", supports, prepared_bytes, prepare, scratch_bytes, run};

}  // namespace mbq

#endif
