// Exact integer Winograd F(2x2,3x3) for codes of up to 6 bits: 3x3 convolutions at stride 1 with 4
// multiplications for each output instead of 9.
//
// Weights are multiplied by 2 on each side, U = (2G) w (2G)^T with the rows (2,0,0), (1,1,1),
// (1,-1,1), (0,0,2) of 2G: integers of at most 27, times 2 where avx512vnni_f2x2_tiles.h asks for
// it. The factor that remains goes into the scale, which a power of two changes exactly; the
// delegate excludes subnormal scales.

#include "avx512vnni_layers.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#include "avx512vnni_f2x2_tiles.h"

namespace mbq {
namespace {

inline constexpr int kMaxTiles = 7;  // of a group: 28 accumulators
inline constexpr int kMaxCode = 63;  // V of tap (1,1) is up to 4 times that, in 8 bits
inline constexpr size_t kStripBytes = 192 * 1024;  // of V, which lives in L2 with the weights

// How a call is cut. A strip is some rows of tiles whose V is kept at a time.
struct Plan {
  int bytes;           // channels of one tile in a chunk: 64, 32 or 16
  int groups, chunks;  // of 4 channels; of `bytes` channels
  int rows, columns;   // of tiles
  int strip_rows;
  size_t tap_stride, chunk_stride, v_bytes;

  Plan(const ConvShape& shape, int chunk_bytes) : bytes(chunk_bytes) {
    groups = (shape.inputs + 3) / 4;
    chunks = (4 * groups + bytes - 1) / bytes;
    rows = (shape.out_height() + 1) / 2;
    columns = (shape.out_width() + 1) / 2;
    const size_t row_bytes = static_cast<size_t>(16) * bytes * chunks * columns;
    const size_t fitting = kStripBytes / row_bytes;
    strip_rows = fitting >= static_cast<size_t>(rows) ? rows
                 : fitting > 0                        ? static_cast<int>(fitting)
                                                      : 1;
    // An odd number of cache lines, so that taps do not share the same few sets of the cache; the
    // transform may write up to a line behind the tiles.
    const size_t lines = (static_cast<size_t>(strip_rows) * columns * bytes + 127) / 64;
    tap_stride = (lines | 1) * 64;
    chunk_stride = 16 * tap_stride;
    v_bytes = chunks * chunk_stride;
  }

  int strip_tiles() const { return strip_rows * columns; }
  size_t place_bytes() const {
    const size_t each = sizeof(TilePlace) + sizeof(uint16_t);
    return (each * strip_tiles() + 63) / 64 * 64;
  }
  size_t bytes_of_strip() const { return v_bytes + place_bytes(); }
};

// Channels of a tile in a vector; neighbouring pixels share one where nothing lies between them.
int chunk_bytes(const ConvShape& shape, size_t pixel) {
  if (shape.inputs <= 16 && pixel == 16) return 16;
  if (shape.inputs <= 32 && pixel == 32) return 32;
  return 64;
}

int blocks_of(const ConvShape& shape) { return (shape.outputs + kOutputBlock - 1) / kOutputBlock; }

size_t block_bytes(const ConvShape& shape) {
  return kStartBytes + static_cast<size_t>(4 * kStepBytes) * ((shape.inputs + 3) / 4);
}

bool supports(const ConvShape& shape, int highest) {
  // U up to 54 in int8 and V up to 4 * highest in uint8 hold by that; 8 times the sum in int32:
  constexpr int kMostInputs = 0x7fffffff / (8 * 9 * 3 * kMaxCode);
  return shape.kernel_height == 3 && shape.kernel_width == 3 && shape.stride == 1 &&
         highest <= kMaxCode && shape.inputs <= kMostInputs && shape.out_height() > 0 &&
         shape.out_width() > 0 && shape.out_height() < 32768 && shape.out_width() < 32768;
}

size_t prepared_bytes(const ConvShape& shape) { return blocks_of(shape) * block_bytes(shape); }

// U of one weight matrix, with the signs and factors of the output transform, in the order
// kTapOrder.
void transform_weights(const int (&w)[3][3], int8_t (&u)[16]) {
  static constexpr int kRows[4][3] = {{2, 0, 0}, {1, 1, 1}, {1, -1, 1}, {0, 0, 2}};
  for (int place = 0; place < 16; ++place) {
    const int i = kTapOrder[place] / 4, j = kTapOrder[place] % 4;
    int sum = 0;
    for (int y = 0; y < 3; ++y) {
      for (int x = 0; x < 3; ++x) sum += kRows[i][y] * kRows[j][x] * w[y][x];
    }
    if ((i == 3) != (j == 3)) sum = -sum;
    u[place] = static_cast<int8_t>(j == 0 || j == 3 ? 2 * sum : sum);
  }
}

// What the offset of V adds to the accumulators of one output ends as 128 times the sum of U over
// the taps that the output gets; start values of the four middle taps take that away.
void start_values(const int64_t (&sums)[16], int32_t* to) {
  int64_t out[2][2] = {};
  for (int place = 0; place < 16; ++place) {
    const int i = kTapOrder[place] / 4, j = kTapOrder[place] % 4;
    if (i == 1 && j == 1) continue;
    for (int y = 0; y < 2; ++y) {
      for (int x = 0; x < 2; ++x) {
        if (i == (y == 0 ? 3 : 0) || j == (x == 0 ? 3 : 0)) continue;
        // Rows and columns 2 enter the second output negatively; 3 do so by the sign in U.
        const bool negative = (y == 1 && i == 2) != (x == 1 && j == 2);
        const int64_t twice = j == 1 || j == 2 ? 2 : 1;
        out[y][x] += 128 * twice * (negative ? -sums[place] : sums[place]);
      }
    }
  }
  // The inverse of the output transform of the middle taps, which is twice a product of
  // butterflies; all sums are multiples of 128.
  for (int t = 0; t < 4; ++t) {
    const int64_t row = t % 2 == 0 ? 1 : -1, column = t < 2 ? 1 : -1;
    const int64_t sum = out[0][0] + row * out[1][0] + column * (out[0][1] + row * out[1][1]);
    to[t * kOutputBlock] = static_cast<int32_t>(-sum / 8);
  }
}

void prepare(const ConvShape& shape, const uint8_t* payload, void* prepared) {
  const int groups = (shape.inputs + 3) / 4;
  for (int block = 0; block < blocks_of(shape); ++block) {
    uint8_t* const to = static_cast<uint8_t*>(prepared) + block * block_bytes(shape);
    const uint8_t* const from = payload + static_cast<size_t>(block) * 9 * groups * kOutputBlock;
    for (int lane = 0; lane < kOutputBlock; ++lane) {
      int64_t sums[16] = {};
      for (int channel = 0; channel < 4 * groups; ++channel) {
        int8_t u[16] = {};
        if (channel < shape.inputs) {
          int w[3][3];
          for (int tap = 0; tap < 9; ++tap) {
            const int group = tap * groups + channel / 4;
            const int byte = from[static_cast<size_t>(group) * kOutputBlock + lane];
            w[tap / 3][tap % 3] = 2 * (byte >> (2 * (channel % 4)) & 3) - 3;
          }
          transform_weights(w, u);
        }
        for (int place = 0; place < 16; ++place) {
          const size_t step = static_cast<size_t>(place / 4) * groups + channel / 4;
          to[kStartBytes + step * kStepBytes + place % 4 * 64 + lane * 4 + channel % 4] =
              static_cast<uint8_t>(u[place]);
          sums[place] += u[place];
        }
      }
      start_values(sums, reinterpret_cast<int32_t*>(to) + lane);
    }
  }
}

using Multiply = void (*)(const TileGroup& group);

template <int kBytes, bool kDirect>
inline constexpr Multiply kMultiply[kMaxTiles + 1] = {
    nullptr,
    multiply_tiles<Tiles<1, 0, 0, 0>, kBytes, kDirect>,
    multiply_tiles<Tiles<2, 0, 0, 0>, kBytes, kDirect>,
    multiply_tiles<Tiles<3, 0, 0, 0>, kBytes, kDirect>,
    multiply_tiles<Tiles<4, 0, 0, 0>, kBytes, kDirect>,
    multiply_tiles<Tiles<5, 0, 0, 0>, kBytes, kDirect>,
    multiply_tiles<Tiles<6, 0, 0, 0>, kBytes, kDirect>,
    multiply_tiles<Tiles<7, 0, 0, 0>, kBytes, kDirect>,
};

const Multiply* multiply_of(int bytes, bool direct) {
  if (bytes == 16) return direct ? kMultiply<16, true> : kMultiply<16, false>;
  if (bytes == 32) return direct ? kMultiply<32, true> : kMultiply<32, false>;
  return direct ? kMultiply<64, true> : kMultiply<64, false>;
}

struct Walk {
  const ConvCall& call;
  Plan plan;
  const Multiply* multiply;

  uint8_t* strip(int thread) const {
    return static_cast<uint8_t*>(call.scratch) + thread * plan.bytes_of_strip();
  }
  TilePlace* places(uint8_t* strip) const {
    return reinterpret_cast<TilePlace*>(strip + plan.v_bytes);
  }
  uint16_t* slots(uint8_t* strip) const {
    return reinterpret_cast<uint16_t*>(places(strip) + plan.strip_tiles());
  }

  void number_tiles(uint8_t* strip, int first_row, int rows) const {
    TilePlace* place = places(strip);
    uint16_t* slot = slots(strip);
    for (int r = 0, tile = 0; r < rows; ++r) {
      for (int c = 0; c < plan.columns; ++c, ++tile) {
        slot[tile] = static_cast<uint16_t>(tile);
        place[tile] = {static_cast<int16_t>(2 * (first_row + r)), static_cast<int16_t>(2 * c)};
      }
    }
  }

  // Rows of tiles from the strip's row `begin`, image row of tiles `image_row`.
  void transform(uint8_t* strip, int image_row, int begin, int end) const {
    const CodeImage& image = call.input;
    for (int r = begin; r < end; ++r) {
      const ptrdiff_t y = 2 * (image_row + r - begin) - call.shape.pad;
      const uint8_t* const from = image.origin + y * static_cast<ptrdiff_t>(image.row) -
                                  call.shape.pad * static_cast<ptrdiff_t>(image.pixel);
      const uint16_t* const slot = slots(strip) + static_cast<size_t>(r) * plan.columns;
      for (int chunk = 0; chunk < plan.chunks; ++chunk) {
        const auto run = plan.bytes == 16   ? RowTransform<16>::run
                         : plan.bytes == 32 ? RowTransform<32>::run
                                            : RowTransform<64>::run;
        run(from + static_cast<size_t>(chunk) * 64, image.row, image.pixel, plan.columns, slot,
            strip + chunk * plan.chunk_stride, plan.tap_stride);
      }
    }
  }

  // One block of outputs of `tiles` tiles from `first` on.
  void multiply_block(uint8_t* strip, int block, int first, int tiles) const {
    const ConvShape& shape = call.shape;
    const Finish finish(call.output, shape, block * kOutputBlock, kF2x2Factor);
    TileGroup group{};
    group.tap_stride = plan.tap_stride;
    group.chunk_stride = plan.chunk_stride;
    group.groups = plan.groups;
    group.u = static_cast<const uint8_t*>(call.prepared) + block * block_bytes(shape);
    group.finish = &finish;
    group.height = shape.out_height();
    group.width = shape.out_width();
    group.ragged =
        (group.height | group.width) % 2 != 0 || (block + 1) * kOutputBlock > shape.outputs;
    // Groups of nearly the same size.
    for (int parts = (tiles + kMaxTiles - 1) / kMaxTiles; parts > 0; --parts) {
      const int count = (tiles + parts - 1) / parts;
      group.v = strip + static_cast<size_t>(first) * plan.bytes;
      group.places = places(strip) + first;
      multiply[count](group);
      first += count;
      tiles -= count;
    }
  }

  static void strips(void* context, int thread, int begin, int end) {
    const Walk& walk = *static_cast<const Walk*>(context);
    uint8_t* const strip = walk.strip(thread);
    const int blocks = blocks_of(walk.call.shape);
    while (begin < end) {
      const int left = end - begin;
      const int rows = left < walk.plan.strip_rows ? left : walk.plan.strip_rows;
      walk.number_tiles(strip, begin, rows);
      walk.transform(strip, begin, 0, rows);
      for (int block = 0; block < blocks; ++block) {
        walk.multiply_block(strip, block, 0, rows * walk.plan.columns);
      }
      begin += rows;
    }
  }
};

size_t scratch_bytes(const ConvShape& shape, int threads) {
  size_t most = 0;
  for (int bytes = 16; bytes <= 64; bytes *= 2) {
    const size_t needed = Plan(shape, bytes).bytes_of_strip();
    if (needed > most) most = needed;
  }
  return most * threads;
}

void run(const ConvCall& call, const Parallel& parallel) {
  const int bytes = chunk_bytes(call.shape, call.input.pixel);
  Walk walk{call, Plan(call.shape, bytes), multiply_of(bytes, call.output.direct)};
  parallel.run(parallel.self, walk.plan.rows, Walk::strips, &walk);
}

}  // namespace

namespace avx512vnni {

const ConvKernel kF2x2{
    "u8s2_conv3x3s1_f2x2_7x16__avx512vnni", supports, prepared_bytes, prepare, scratch_bytes, run};

}  // namespace avx512vnni
}  // namespace mbq

#endif
