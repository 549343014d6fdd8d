// Tiles of 6 pixels x 16 outputs, whose 12 accumulators stay in registers over the whole sum.
//
// Each step takes the weights of one 32-bit group of inputs for 16 outputs (two vectors),
// broadcasts the same group of every pixel and multiplies. A group is four codes (uint8) and four
// int8 weights, or two int16 pixels and two int16 weights in the first layer. Pixels are counted
// over the whole output, so that tiles do not end with rows: each has a pointer of its own, and a
// tap of the kernel is the same distance from all of them.

#pragma once

#include "avx2_finish.h"

namespace mbq {
namespace {

constexpr int kTilePixels = 6;
constexpr int kVectors = 2;                 // of 8 outputs
constexpr int kGroupBytes = kVectors * 32;  // of weights, for 16 outputs
constexpr int kGroup = 4;                   // bytes

// The inputs of a window: `rows` x `columns` runs of `groups` groups.
struct Window {
  int rows, columns, groups;
  size_t row_bytes, column_bytes;

  constexpr int steps() const { return rows * columns * groups; }
};

// In assembly because the compiler, left to itself, does not keep 12 sums in registers. kWidens:
// sums are int16 and have to be widened in time.

#if defined(__AVXVNNI__)

// vpdpbusd adds four products to int32.
struct Codes {
  static constexpr bool kWidens = false;
  [[gnu::always_inline]] static void dot(__m256i& sum, __m256i codes, __m256i weights) {
    asm("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(codes), "x"(weights));
  }
};

struct Words {
  static constexpr bool kWidens = false;
  [[gnu::always_inline]] static void dot(__m256i& sum, __m256i pixels, __m256i weights) {
    asm("%{vex%} vpdpwssd %2, %1, %0" : "+x"(sum) : "x"(pixels), "x"(weights));
  }
};

#else

// vpmaddubsw adds two products, of at most 255 * 3 each, to an int16 that cannot saturate; as many
// of those sums as fit int16 are added before vpmaddwd widens them: 5461 / the highest code.
struct Codes {
  static constexpr bool kWidens = true;
  [[gnu::always_inline]] static void dot(__m256i& sum, __m256i codes, __m256i weights) {
    __m256i pairs;
    asm("vpmaddubsw %3, %2, %1\n\t"
        "vpaddw %1, %0, %0"
        : "+x"(sum), "=&x"(pairs)
        : "x"(codes), "x"(weights));
  }
};

struct Words {
  static constexpr bool kWidens = false;
  [[gnu::always_inline]] static void dot(__m256i& sum, __m256i pixels, __m256i weights) {
    __m256i pairs;
    asm("vpmaddwd %3, %2, %1\n\t"
        "vpaddd %1, %0, %0"
        : "+x"(sum), "=&x"(pairs)
        : "x"(pixels), "x"(weights));
  }
};

#endif

[[gnu::always_inline]] inline __m256i broadcast(const uint8_t* group) {
  __m256i result;
  asm("vpbroadcastd %1, %0"
      : "=x"(result)
      : "m"(*reinterpret_cast<const uint8_t (*)[kGroup]>(group)));
  return result;
}

// `P` windows, each from its pointer on, into accumulators [P][16]. `most` steps are summed before
// sums are widened.
template <typename Operand, int P>
[[gnu::always_inline]] inline void sum_windows(const uint8_t* const* pixels, const Window& window,
                                               const uint8_t* weights, int most,
                                               int32_t* accumulators) {
  __m256i sum[P][kVectors];
  const uint8_t* from[P];
#pragma GCC unroll 6
  for (int p = 0; p < P; ++p) {
    from[p] = pixels[p];
    for (int v = 0; v < kVectors; ++v) sum[p][v] = _mm256_setzero_si256();
  }
  __m256i* const out = reinterpret_cast<__m256i*>(accumulators);
  bool widened = false;
  const auto widen = [&]() __attribute__((always_inline)) {
    const __m256i ones = _mm256_set1_epi16(1);
#pragma GCC unroll 6
    for (int p = 0; p < P; ++p) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) {
        __m256i wide = _mm256_madd_epi16(sum[p][v], ones);
        __m256i* const to = out + p * kVectors + v;
        if (widened) wide = _mm256_add_epi32(wide, _mm256_load_si256(to));
        _mm256_store_si256(to, wide);
        sum[p][v] = _mm256_setzero_si256();
      }
    }
    widened = true;
  };
  int left = most;
  for (int row = 0; row < window.rows; ++row) {
    for (int column = 0; column < window.columns; ++column) {
      size_t offset = row * window.row_bytes + column * window.column_bytes;
      for (int groups = window.groups; groups > 0;) {
        int steps = groups;
        if constexpr (Operand::kWidens) {
          if (left == 0) {
            widen();
            left = most;
          }
          if (steps > left) steps = left;
          left -= steps;
        }
        groups -= steps;
        for (; steps > 0; --steps) {
          const __m256i w0 = _mm256_load_si256(reinterpret_cast<const __m256i*>(weights));
          const __m256i w1 = _mm256_load_si256(reinterpret_cast<const __m256i*>(weights + 32));
#pragma GCC unroll 6
          for (int p = 0; p < P; ++p) {
            const __m256i group = broadcast(from[p] + offset);
            Operand::dot(sum[p][0], group, w0);
            Operand::dot(sum[p][1], group, w1);
          }
          weights += kGroupBytes;
          offset += kGroup;
        }
      }
    }
  }
  if constexpr (Operand::kWidens) {
    widen();
  } else {
#pragma GCC unroll 6
    for (int p = 0; p < P; ++p) {
      for (int v = 0; v < kVectors; ++v) _mm256_store_si256(out + p * kVectors + v, sum[p][v]);
    }
  }
}

template <typename Operand, int P>
void tile(const uint8_t* const* pixels, const Window& window, const uint8_t* weights, int most,
          int32_t* accumulators) {
  sum_windows<Operand, P>(pixels, window, weights, most, accumulators);
}

using Tile = void (*)(const uint8_t* const*, const Window&, const uint8_t*, int, int32_t*);
template <typename Operand>
constexpr Tile kTiles[kTilePixels] = {tile<Operand, 1>, tile<Operand, 2>, tile<Operand, 3>,
                                      tile<Operand, 4>, tile<Operand, 5>, tile<Operand, 6>};

// The windows of a layer's pixels, row by row.
struct Pixels {
  const uint8_t* first;   // of pixel (0, 0)
  size_t step_y, step_x;  // between neighbours
  Window window;
  int width;
};

// 16 outputs of the pixels begin .. end - 1.
template <typename Operand, bool kDirect>
void run_tiles(const Pixels& pixels, int begin, int end, const uint8_t* weights, int most,
               const Finish& finish) {
  int y = begin / pixels.width, x = begin % pixels.width;
  // Tiles of nearly the same size.
  for (int tiles = (end - begin + kTilePixels - 1) / kTilePixels; tiles > 0; --tiles) {
    const int count = (end - begin + tiles - 1) / tiles;
    const uint8_t* from[kTilePixels];
    int to_y = y, to_x = x;
    const uint8_t* at = pixels.first + y * pixels.step_y + x * pixels.step_x;
    for (int p = 0; p < count; ++p) {
      from[p] = at;
      at += pixels.step_x;
      if (++x == pixels.width) {
        x = 0;
        at = pixels.first + ++y * pixels.step_y;
      }
    }
    alignas(32) int32_t accumulators[kTilePixels * kOutputBlock];
    kTiles<Operand>[count - 1](from, pixels.window, weights, most, accumulators);
    const __m256i* result = reinterpret_cast<const __m256i*>(accumulators);
    const auto next = [&]() __attribute__((always_inline)) {
      const Accumulators acc{result[0], result[1], to_y, to_x};
      result += kVectors;
      if (++to_x == pixels.width) {
        to_x = 0;
        ++to_y;
      }
      return acc;
    };
    int p = 0;
    for (; p + 2 <= count; p += 2) {
      const Accumulators acc0 = next(), acc1 = next();
      finish.operator()<kDirect>(acc0, acc1);
    }
    if (p < count) finish.operator()<kDirect>(next());
    begin += count;
  }
}

}  // namespace
}  // namespace mbq
