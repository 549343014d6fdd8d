// Exact Winograd convolution F(2x2, 3x3) in int8, shared by the NEON instruction sets (A. Lavin, S.
// Gray, "Fast algorithms for convolutional neural networks", 2016): 16 multiplications for 4
// outputs where the direct sum has 36.
//
// A tile of 4 x 4 codes d becomes V = B d B' with the rows (1 0 -1 0), (0 1 1 0), (0 -1 1 0),
// (0 1 0 -1) in B; weights w become U = G w G' with (2 0 0), (1 1 1), (1 -1 1), (0 0 2), twice the
// usual, in G, so that all are integers, at most 3 * 3 * 3; M is the sum of U * V over the inputs;
// and A M A' with (1 1 1 0), (0 1 -1 -1) in A is 4 times the 2 x 2 outputs, which scale absorbs.
//
// With codes of at most 63 every V lies in -126..126, except for V(1, 1) in 0..252: that one is
// taken minus 128, and its sums start at 128 * sum(U(1, 1)). int8 arithmetic that wraps around
// gives both without more.
//
// A is merged into the sums. In a row of M the two middle taps are summed side by side; their sum
// and difference are what the outer two, the last with negative U, are then added to. Rows are
// merged in the same way: 1 and 2 first, 0 onto their sum, 3, negative, onto their difference. A
// group of tiles and a block of outputs thus stay in 16 accumulators, two taps at a time.
//
// Anonymous for the same reason as finish_neon.h.

#pragma once

#include "finish_neon.h"

namespace mbq {
namespace {

inline constexpr int kStepInputs = 16;     // that a step of the multiplication takes
inline constexpr int kPhases = 8;          // 4 rows of taps, in each the middle and the outer two
inline constexpr int kStripBytes = 65536;  // of transformed tiles, which should stay in a cache

struct Tap {
  int y, x;
  bool negative;  // U
};

// The taps of a phase, in the order of their use.
constexpr Tap tap_of(int phase, int second) {
  constexpr int kRows[4] = {1, 2, 0, 3};
  const int y = kRows[phase / 2];
  const int x = phase % 2 == 0 ? 1 + second : 3 * second;
  return {y, x, (y == 3) != (x == 3)};
}

constexpr int f2x2_steps(const ConvShape& shape) {
  return round_up(shape.inputs, kStepInputs) / kStepInputs;
}

// Bytes of transformed codes of a group, and of the transformed weights of a block of outputs with
// their start values before them.
template <typename Multiply>
constexpr size_t group_bytes(const ConvShape& shape) {
  return static_cast<size_t>(kPhases) * f2x2_steps(shape) * Multiply::kStepCodes;
}
template <typename Multiply>
constexpr size_t f2x2_block_bytes(const ConvShape& shape) {
  return Multiply::start_bytes(f2x2_steps(shape)) +
         static_cast<size_t>(kPhases) * f2x2_steps(shape) * Multiply::kStepWeights;
}
template <typename Multiply>
constexpr int strip_groups(const ConvShape& shape) {
  const int fit = static_cast<int>(kStripBytes / group_bytes<Multiply>(shape));
  return fit > 1 ? fit : 1;
}

// One output and input: all of U at once, in the order [phase][second].
inline void transform_weights(const int w[9], int8_t u[2 * kPhases]) {
  int rows[4][3];
  for (int x = 0; x < 3; ++x) {
    rows[0][x] = 2 * w[x];
    rows[1][x] = w[x] + w[3 + x] + w[6 + x];
    rows[2][x] = w[x] - w[3 + x] + w[6 + x];
    rows[3][x] = 2 * w[6 + x];
  }
  for (int i = 0; i < 2 * kPhases; ++i) {
    const Tap tap = tap_of(i / 2, i % 2);
    const int* const r = rows[tap.y];
    const int value = tap.x == 0   ? 2 * r[0]
                      : tap.x == 1 ? r[0] + r[1] + r[2]
                      : tap.x == 2 ? r[0] - r[1] + r[2]
                                   : 2 * r[2];
    u[i] = static_cast<int8_t>(tap.negative ? -value : value);
  }
}

template <typename Multiply>
void f2x2_prepare(const ConvShape& shape, const uint8_t* payload, void* prepared) {
  const int steps = f2x2_steps(shape);
  const int groups = round_up(shape.inputs, kCodesPerByte) / kCodesPerByte;
  const size_t bytes = f2x2_block_bytes<Multiply>(shape);
  for (int first = 0; first < shape.outputs; first += Multiply::kOutputs) {
    uint8_t* const block = static_cast<uint8_t*>(prepared) + first / Multiply::kOutputs * bytes;
    memset(block, 0, bytes);
    int8_t* const to = reinterpret_cast<int8_t*>(block + Multiply::start_bytes(steps));
    const uint8_t* const from =
        payload + static_cast<size_t>(first / kOutputBlock) * 9 * groups * kOutputBlock;
    for (int o = 0; o < Multiply::kOutputs; ++o) {
      for (int c = 0; c < shape.inputs; ++c) {
        int w[9];
        for (int tap = 0; tap < 9; ++tap) {
          const size_t group = static_cast<size_t>(tap) * groups + c / kCodesPerByte;
          const uint8_t byte = from[group * kOutputBlock + first % kOutputBlock + o];
          w[tap] = 2 * (byte >> (c % kCodesPerByte * 2) & 3) - 3;
        }
        int8_t u[2 * kPhases];
        transform_weights(w, u);
        Multiply::add_start(block, o, c, Multiply::kOffset * u[0]);
        for (int i = 0; i < 2 * kPhases; ++i) {
          const size_t step = static_cast<size_t>(i / 2) * steps + c / kStepInputs;
          to[step * Multiply::kStepWeights + i % 2 * (Multiply::kStepWeights / 2) +
             Multiply::weight(o, c % kStepInputs)] = u[i];
        }
      }
    }
  }
}

[[gnu::always_inline]] inline int32x4_t add(int32x4_t a, int32x4_t b) { return vaddq_s32(a, b); }
[[gnu::always_inline]] inline int16x8_t add(int16x8_t a, int16x8_t b) { return vaddq_s16(a, b); }
[[gnu::always_inline]] inline int32x4_t subtract(int32x4_t a, int32x4_t b) {
  return vsubq_s32(a, b);
}
[[gnu::always_inline]] inline int16x8_t subtract(int16x8_t a, int16x8_t b) {
  return vsubq_s16(a, b);
}

struct F2x2Walk {
  const ConvCall* call;
  int columns, tiles;  // of tiles: in a row, in all

  // The last tile fills the last group up.
  void place(int tile, int* y, int* x) const {
    const int present = tile < tiles ? tile : tiles - 1;
    *y = present / columns * 2;
    *x = present % columns * 2;
  }
};

// Adds and subtracts the vectors of a row or column: B.
[[gnu::always_inline]] inline void b_transform(const uint8x16_t in[4], uint8x16_t out[4]) {
  out[0] = vsubq_u8(in[0], in[2]);
  out[1] = vaddq_u8(in[1], in[2]);
  out[2] = vsubq_u8(in[2], in[1]);
  out[3] = vsubq_u8(in[1], in[3]);
}

template <typename Multiply>
void transform_group(const F2x2Walk& walk, int group, uint8_t* to) {
  const ConvShape& shape = walk.call->shape;
  const CodeImage& image = walk.call->input;
  const int steps = f2x2_steps(shape);
  for (int tile = 0; tile < Multiply::kTiles; ++tile) {
    int y, x;
    walk.place(group * Multiply::kTiles + tile, &y, &x);
    const uint8_t* const from =
        image.origin + (static_cast<ptrdiff_t>(y) - shape.pad) * static_cast<ptrdiff_t>(image.row) +
        (static_cast<ptrdiff_t>(x) - shape.pad) * static_cast<ptrdiff_t>(image.pixel);
    for (int step = 0; step < steps; ++step) {
      asm volatile("// LLVM-MCA-BEGIN f2x2_transform_1x16 0");
      uint8x16_t rows[4][4];  // [column][row of taps]
      for (int j = 0; j < 4; ++j) {
        uint8x16_t column[4];
        for (int i = 0; i < 4; ++i) {
          column[i] = vld1q_u8(from + i * image.row + j * image.pixel + step * kStepInputs);
        }
        b_transform(column, rows[j]);
      }
      uint8_t* const own = to + step * Multiply::kStepCodes;
      for (int i = 0; i < 4; ++i) {
        const uint8x16_t row[4] = {rows[0][i], rows[1][i], rows[2][i], rows[3][i]};
        uint8x16_t taps[4];
        b_transform(row, taps);
        if (i == 1) taps[1] = vsubq_u8(taps[1], vdupq_n_u8(Multiply::kOffset));
        const int order = i == 0 ? 2 : i == 3 ? 3 : i - 1;
        uint8_t* const middle = own + static_cast<size_t>(2 * order) * steps * Multiply::kStepCodes;
        uint8_t* const outer = middle + static_cast<size_t>(steps) * Multiply::kStepCodes;
        Multiply::store_codes(outer, tile, taps[0]);
        Multiply::store_codes(middle, tile, taps[1]);
        Multiply::store_codes(middle + Multiply::kStepCodes / 2, tile, taps[2]);
        Multiply::store_codes(outer + Multiply::kStepCodes / 2, tile, taps[3]);
      }
      asm volatile("// LLVM-MCA-END");
    }
  }
}

// One phase.
template <typename Multiply>
[[gnu::always_inline]] inline void multiply_steps(typename Multiply::Vector acc[16],
                                                  const uint8_t* codes, const uint8_t* weights,
                                                  int steps) {
  // Copies, so that the compiler keeps them in registers.
  typename Multiply::Vector own[16];
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) own[i] = acc[i];
  asm("" : "+r"(steps));  // so that it does not unroll where few are possible, and spill
  for (int step = 0; step < steps; ++step) {
    Multiply::step(own, codes, weights);
    codes += Multiply::kStepCodes;
    weights += Multiply::kStepWeights;
  }
#pragma GCC unroll 16
  for (int i = 0; i < 16; ++i) acc[i] = own[i];
}

// A group of tiles times a block of outputs, over `count` steps from `first` on. What comes out are
// the sums of 4 outputs, in merged[2 + y][x * 8 ...].
template <typename Multiply>
[[gnu::always_inline]] inline void multiply_chunk(int steps, int first, int count,
                                                  const uint8_t* codes, const uint8_t* block,
                                                  typename Multiply::Vector merged[4][16]) {
  constexpr int kHalf = 8;  // accumulators of one tap
  using Vector = typename Multiply::Vector;
  codes += static_cast<size_t>(first) * Multiply::kStepCodes;
  const uint8_t* weights =
      block + Multiply::start_bytes(steps) + static_cast<size_t>(first) * Multiply::kStepWeights;
  const size_t phase_codes = static_cast<size_t>(steps) * Multiply::kStepCodes;
  const size_t phase_weights = static_cast<size_t>(steps) * Multiply::kStepWeights;
  // merged[row] is what a row's sums are added to, and then the sums.
  for (int i = 0; i < 2 * kHalf; ++i) merged[0][i] = merged[1][i] = Vector{};
  for (int row = 0; row < 4; ++row) {
    Vector acc[2 * kHalf];
    for (int i = 0; i < 2 * kHalf; ++i) acc[i] = Vector{};
    if (row == 0) Multiply::start(block, first, acc);
    multiply_steps<Multiply>(acc, codes, weights, count);
    codes += phase_codes;
    weights += phase_weights;
    for (int i = 0; i < kHalf; ++i) {
      const Vector sum = add(acc[i], acc[kHalf + i]);
      const Vector difference = subtract(acc[i], acc[kHalf + i]);
      acc[i] = add(merged[row][i], sum);
      acc[kHalf + i] = add(merged[row][kHalf + i], difference);
    }
    multiply_steps<Multiply>(acc, codes, weights, count);
    codes += phase_codes;
    weights += phase_weights;
    for (int i = 0; i < 2 * kHalf; ++i) {
      if (row == 1) {
        merged[2][i] = add(merged[0][i], acc[i]);
        merged[3][i] = subtract(merged[0][i], acc[i]);
      } else {
        merged[row][i] = acc[i];
      }
    }
  }
}

// The same over all inputs, finished.
template <typename Multiply>
[[gnu::always_inline]] inline void multiply_group(const F2x2Walk& walk, int group,
                                                  const uint8_t* codes, const uint8_t* block,
                                                  const Finish<Multiply::kOutputs>& finish) {
  constexpr int kVectors = Multiply::kOutputs / 4;
  const ConvShape& shape = walk.call->shape;
  const int steps = f2x2_steps(shape);
  int32x4_t sums[Multiply::kTiles][4][kVectors];
  for (int first = 0; first < steps; first += Multiply::kMaxSteps) {
    const int left = steps - first;
    typename Multiply::Vector merged[4][16];
    multiply_chunk<Multiply>(steps, first, left < Multiply::kMaxSteps ? left : Multiply::kMaxSteps,
                             codes, block, merged);
    for (int tile = 0; tile < Multiply::kTiles; ++tile) {
      for (int i = 0; i < 4; ++i) {
        int32x4_t result[kVectors];
        Multiply::result(merged[2 + i / 2] + i % 2 * 8, tile, result);
        for (int v = 0; v < kVectors; ++v) {
          sums[tile][i][v] = first == 0 ? result[v] : add(sums[tile][i][v], result[v]);
        }
      }
    }
  }
  const int left = walk.tiles - group * Multiply::kTiles;
  for (int tile = 0; tile < Multiply::kTiles && tile < left; ++tile) {
    int y, x;
    walk.place(group * Multiply::kTiles + tile, &y, &x);
    for (int i = 0; i < 4; ++i) {
      if (y + i / 2 >= shape.out_height() || x + i % 2 >= shape.out_width()) continue;
      finish(sums[tile][i], y + i / 2, x + i % 2);
    }
  }
}

template <typename Multiply>
void f2x2_groups(void* context, int thread, int begin, int end) {
  const F2x2Walk& walk = *static_cast<const F2x2Walk*>(context);
  const ConvCall& call = *walk.call;
  const size_t bytes = group_bytes<Multiply>(call.shape);
  const int most = strip_groups<Multiply>(call.shape);
  uint8_t* const strip = static_cast<uint8_t*>(call.scratch) + thread * most * bytes;
  for (; begin < end; begin += most) {
    const int groups = end - begin < most ? end - begin : most;
    for (int i = 0; i < groups; ++i) {
      transform_group<Multiply>(walk, begin + i, strip + i * bytes);
    }
    const uint8_t* block = static_cast<const uint8_t*>(call.prepared);
    for (int first = 0; first < call.shape.outputs; first += Multiply::kOutputs) {
      const Finish<Multiply::kOutputs> finish(call.output, call.shape, first, 0.25f);
      for (int i = 0; i < groups; ++i) {
        multiply_group<Multiply>(walk, begin + i, strip + i * bytes, block, finish);
      }
      block += f2x2_block_bytes<Multiply>(call.shape);
    }
  }
}

template <typename Multiply>
struct F2x2 {
  static bool supports(const ConvShape& shape, int highest) {
    return shape.kernel_height == 3 && shape.kernel_width == 3 && shape.stride == 1 &&
           highest <= Multiply::kHighest;
  }
  static size_t prepared_bytes(const ConvShape& shape) {
    return round_up(shape.outputs, Multiply::kOutputs) / Multiply::kOutputs *
           f2x2_block_bytes<Multiply>(shape);
  }
  static size_t scratch_bytes(const ConvShape& shape, int threads) {
    return threads * strip_groups<Multiply>(shape) * group_bytes<Multiply>(shape);
  }
  static void run(const ConvCall& call, const Parallel& parallel) {
    const int columns = (call.shape.out_width() + 1) / 2;
    F2x2Walk walk{&call, columns, columns * ((call.shape.out_height() + 1) / 2)};
    parallel.run(parallel.self, (walk.tiles + Multiply::kTiles - 1) / Multiply::kTiles,
                 f2x2_groups<Multiply>, &walk);
  }
  static constexpr ConvKernel kernel(const char* name) {
    return {name, supports, prepared_bytes, f2x2_prepare<Multiply>, scratch_bytes, run};
  }
};

}  // namespace
}  // namespace mbq
