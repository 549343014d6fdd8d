// Depthwise convolution: vpdpbusd over four neighbours in a row, for each of 16 channels.
//
// The codes of four pixels of 64 channels are interleaved byte by byte, within 128-bit lanes, into
// four vectors that hold four pixels of each channel. One dot product then does up to four taps of
// a row; at stride 1 the same vectors serve two outputs, whose weights are (w0 w1 w2 0) and (0 w0
// w1 w2), and each row of them serves two rows of outputs. The lanes come out interleaved as well,
// and packing the results to bytes puts them back in order, so that nothing is ever permuted.
//
// Up to 32 channels at the end go with two pairs of pixels in the halves of a vector.

#include "avx512vnni_layers.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#include "avx512vnni_depthwise.h"

namespace mbq {
namespace {

constexpr int kMaxSlots = 4 * 2 * 2;
constexpr size_t kBandBytes = 512 << 10;  // of codes: half an L2 cache

// How windows of a stride share the pixels that a tile reads in each row, its slots. Slots are
// interleaved in pairs, and two pairs make a quad: four taps. Stride 3 stands for any.
template <int Stride, int Kernel>
struct Slots {
  // At stride 1 the window of the second output begins one pixel later, with weights of its own.
  static constexpr int kPhases = Stride == 1 ? kOutputs : 1;
  static constexpr int kQuads = Kernel == 3 ? 1 : 2;
  static_assert(Kernel + kPhases - 1 <= 4 * kQuads);
  static constexpr int kPairs = Stride == 1   ? 2 * kQuads
                                : Stride == 2 ? 2 * kQuads + kOutputs - 1
                                              : 2 * kQuads * kOutputs;
  static_assert(2 * kPairs <= kMaxSlots);

  // The first of the two pairs of a quad.
  static constexpr int pair(int output, int quad) {
    return Stride == 1 ? 2 * quad : Stride == 2 ? output + 2 * quad : 2 * (output * kQuads + quad);
  }
  // How far a slot is from the tile's first pixel.
  static constexpr int column(int slot, int stride) {
    return Stride <= 2 ? slot : slot / (4 * kQuads) * stride + slot % (4 * kQuads);
  }
};

// Smaller kernels run as these, with weights 0 to the right and below.
int kernel_of(const ConvShape& shape) { return shape.kernel_height <= 3 ? 3 : 5; }

int quads_of(const ConvShape& shape) { return kernel_of(shape) == 3 ? 1 : 2; }

// Two rows of outputs share rows of codes at strides 1 and 2. A kernel of one row must not read
// further below the image than any other.
int sharing_of(const ConvShape& shape) {
  return shape.stride <= 2 && shape.kernel_height > 1 ? shape.stride : 3;
}

int phases_of(const ConvShape& shape) { return sharing_of(shape) == 1 ? kOutputs : 1; }

// Weights of one block: [kernel row][phase][quad][part] vectors.
size_t block_bytes(const ConvShape& shape) {
  return static_cast<size_t>(kernel_of(shape)) * phases_of(shape) * quads_of(shape) * kParts *
         kVectorBytes;
}

// One tile's inputs: row r, slot s is at rows + r * row_bytes + slots[s], and the other half of a
// narrow vector at `far` instead of `slots`.
struct TileInput {
  const uint8_t* rows;
  size_t row_bytes;
  const uint8_t* weights;
  size_t slots[kMaxSlots], far[kMaxSlots];
};

[[gnu::always_inline]] inline void dot(__m512i& acc, __m512i codes, __m512i weights) {
  asm("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(weights));
}

template <bool Narrow>
[[gnu::always_inline]] inline __m512i load(const TileInput& input, const uint8_t* row, int slot) {
  if constexpr (Narrow) {
    const __m256i* const low = reinterpret_cast<const __m256i*>(row + input.slots[slot]);
    const __m256i* const high = reinterpret_cast<const __m256i*>(row + input.far[slot]);
    return _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(low)),
                              _mm256_loadu_si256(high), 1);
  } else {
    __m512i codes = _mm512_loadu_si512(row + input.slots[slot]);
    asm("" : "+v"(codes));  // two users: not a memory operand of both
    return codes;
  }
}

// The pairs of a row: codes of their two pixels side by side, 8 of each 16 channels in low and
// high.
template <int Pairs, bool Narrow>
struct RowOfPairs {
  __m512i low[Pairs], high[Pairs];

  [[gnu::always_inline]] RowOfPairs(const TileInput& input, const uint8_t* row) {
#pragma GCC unroll 8
    for (int p = 0; p < Pairs; ++p) {
      const __m512i first = load<Narrow>(input, row, 2 * p);
      const __m512i second = load<Narrow>(input, row, 2 * p + 1);
      low[p] = _mm512_unpacklo_epi8(first, second);
      high[p] = _mm512_unpackhi_epi8(first, second);
    }
  }

  // Part v of the quad that begins with pair p.
  [[gnu::always_inline]] __m512i quad(int p, int v) const {
    return v == 0   ? _mm512_unpacklo_epi16(low[p], low[p + 1])
           : v == 1 ? _mm512_unpackhi_epi16(low[p], low[p + 1])
           : v == 2 ? _mm512_unpacklo_epi16(high[p], high[p + 1])
                    : _mm512_unpackhi_epi16(high[p], high[p + 1]);
  }
};

// Rows x kOutputs outputs from (y, x) on.
template <int Stride, int Kernel, int Rows, bool Narrow>
void tile(const TileInput& input, const BlockFinish& finish, int y, int x, int width) {
  using Layout = Slots<Stride, Kernel>;
  constexpr int kQuads = Layout::kQuads;
  __m512i acc[Rows][kOutputs][kParts];
#pragma GCC unroll 16
  for (int i = 0; i < Rows * kOutputs * kParts; ++i) {
    acc[i / kParts / kOutputs][i / kParts % kOutputs][i % kParts] = _mm512_setzero_si512();
  }
  const uint8_t* row = input.rows;
#pragma GCC unroll 8
  for (int r = 0; r < Kernel + (Rows - 1) * Stride; ++r, row += input.row_bytes) {
    const RowOfPairs<Layout::kPairs, Narrow> pairs(input, row);
#pragma GCC unroll 2
    for (int quad = 0; quad < kQuads; ++quad) {
#pragma GCC unroll 4
      for (int v = 0; v < kParts; ++v) {
        __m512i codes[kOutputs];
#pragma GCC unroll 2
        for (int output = 0; output < kOutputs; ++output) {
          codes[output] = pairs.quad(Layout::pair(output, quad), v);
        }
#pragma GCC unroll 2
        for (int to = 0; to < Rows; ++to) {
          const int ky = r - to * Stride;
          if (ky < 0 || ky >= Kernel) continue;
#pragma GCC unroll 2
          for (int output = 0; output < kOutputs; ++output) {
            const int phase = Layout::kPhases == 1 ? 0 : output;
            const int vector = ((ky * Layout::kPhases + phase) * kQuads + quad) * kParts + v;
            dot(acc[to][output][v], codes[output],
                _mm512_load_si512(input.weights + vector * kVectorBytes));
          }
        }
      }
    }
  }
  finish.template operator()<Rows, Narrow>(acc, y, x, width);
}

using Tile = void (*)(const TileInput&, const BlockFinish&, int, int, int);

struct Walk {
  const ConvCall* call;
  int blocks, bands;
  // For one row and for two, for a wide and for a narrow block.
  Tile tiles[2][2];
  int rows;  // of a tile
  int slots;
  int (*column)(int slot, int stride);
};

// Rows first .. last - 1 of the outputs of one block.
void walk_block(const Walk& walk, const BlockFinish& finish, int block, int first, int last) {
  const ConvCall& call = *walk.call;
  const ConvShape& shape = call.shape;
  const CodeImage& image = call.input;
  const int width = shape.out_width(), stride = shape.stride;
  const bool narrow = is_narrow(shape, block);
  const int tile_width = narrow ? 2 * kOutputs : kOutputs;
  const int last_column = shape.width + 2 * shape.pad - 1;  // of those that windows need
  const uint8_t* const codes =
      image.origin - shape.pad * (image.row + image.pixel) + block * kChannels;
  TileInput input;
  input.row_bytes = image.row;
  input.weights = static_cast<const uint8_t*>(call.prepared) + block * block_bytes(shape);

  // Slots whose weights are 0, and outputs behind the row, may be any pixel: none from behind
  // `limit`.
  const auto place = [&](int x, int limit) {
    for (int slot = 0; slot < walk.slots; ++slot) {
      const int column = x * stride + walk.column(slot, stride);
      const int far = column + kOutputs * stride;
      input.slots[slot] = (column < limit ? column : limit) * image.pixel;
      input.far[slot] = (far < limit ? far : limit) * image.pixel;
    }
  };
  const auto walk_columns = [&](int begin, int end, size_t step) {
    for (int y = first; y < last; y += walk.rows) {
      const int together = last - y < walk.rows ? last - y : walk.rows;
      const Tile tile = walk.tiles[together - 1][narrow];
      input.rows = codes + y * stride * image.row;
      for (int x = begin; x < end; x += tile_width, input.rows += step) {
        tile(input, finish, y, x, width);
      }
    }
  };

  // Tiles that lie inside, all with the slots of the first; then the others.
  const int reach = walk.column(walk.slots - 1, stride) + (narrow ? kOutputs * stride : 0);
  int inside = 0;
  while (inside < width && inside * stride + reach <= last_column) inside += tile_width;
  place(0, reach);
  walk_columns(0, inside, tile_width * stride * image.pixel);
  for (int x = inside; x < width; x += tile_width) {
    place(x, last_column);
    walk_columns(x, x + 1, 0);
  }
}

void walk_items(void* context, int, int begin, int end) {
  const Walk& walk = *static_cast<const Walk*>(context);
  const ConvCall& call = *walk.call;
  const int height = call.shape.out_height();
  const int tile_rows = (height + walk.rows - 1) / walk.rows;
  for (int item = begin; item < end; ++item) {
    const int block = item % walk.blocks;
    const int64_t band = item / walk.blocks;
    const int first = static_cast<int>(band * tile_rows / walk.bands) * walk.rows;
    const int until = static_cast<int>((band + 1) * tile_rows / walk.bands) * walk.rows;
    const int last = until < height ? until : height;
    BlockFinish finish(call.output, call.shape, block);
    if (finish.quick) {
      walk_block(walk, finish, block, first, last);
    } else {
      const Finish any[kParts] = {finish.part(call.shape, 0), finish.part(call.shape, 1),
                                  finish.part(call.shape, 2), finish.part(call.shape, 3)};
      finish.any = any;
      walk_block(walk, finish, block, first, last);
    }
  }
}

template <int Stride, int Kernel>
Walk walk_of() {
  using Layout = Slots<Stride, Kernel>;
  constexpr int kRows = Stride <= 2 ? 2 : 1;
  Walk walk{};
  walk.tiles[0][0] = tile<Stride, Kernel, 1, false>;
  walk.tiles[0][1] = tile<Stride, Kernel, 1, true>;
  walk.tiles[kRows - 1][0] = tile<Stride, Kernel, kRows, false>;
  walk.tiles[kRows - 1][1] = tile<Stride, Kernel, kRows, true>;
  walk.rows = kRows;
  walk.slots = 2 * Layout::kPairs;
  walk.column = Layout::column;
  return walk;
}

void run(const ConvCall& call, const Parallel& parallel) {
  const ConvShape& shape = call.shape;
  const bool small = kernel_of(shape) == 3;
  const int sharing = sharing_of(shape);
  Walk walk = sharing == 1   ? (small ? walk_of<1, 3>() : walk_of<1, 5>())
              : sharing == 2 ? (small ? walk_of<2, 3>() : walk_of<2, 5>())
                             : (small ? walk_of<3, 3>() : walk_of<3, 5>());
  walk.call = &call;
  walk.blocks = blocks_of(shape);
  const int tile_rows = (shape.out_height() + walk.rows - 1) / walk.rows;
  const size_t code_bytes = shape.height * call.input.row;
  walk.bands =
      round_up(static_cast<int>((code_bytes + kBandBytes - 1) / kBandBytes), parallel.threads);
  if (walk.bands > tile_rows) walk.bands = tile_rows;
  parallel.run(parallel.self, walk.bands * walk.blocks, walk_items, &walk);
}

bool supports(const ConvShape& shape, int) {
  return shape.kernel_height == shape.kernel_width && shape.kernel_height <= kMaxDepthwiseKernel;
}

size_t prepared_bytes(const ConvShape& shape) { return blocks_of(shape) * block_bytes(shape); }

void prepare(const ConvShape& shape, const uint8_t* payload, void* prepared) {
  const int kernel = shape.kernel_width, taps = kernel * shape.kernel_height;
  const int groups = round_up(taps, kCodesPerByte) / kCodesPerByte;
  const int phases = phases_of(shape), quads = quads_of(shape);
  int8_t* to = static_cast<int8_t*>(prepared);
  for (int block = 0; block < blocks_of(shape); ++block) {
    for (int ky = 0; ky < kernel_of(shape); ++ky) {
      for (int phase = 0; phase < phases; ++phase) {
        for (int quad = 0; quad < quads; ++quad, to += kParts * kVectorBytes) {
          for (int i = 0; i < kParts * kVectorBytes; ++i) {
            const int n = i / 4, kx = quad * 4 + i % 4 - phase;
            const int channel = channel_of(shape, block, n);
            int8_t weight = 0;
            if (channel >= 0 && ky < kernel && kx >= 0 && kx < kernel) {
              const int tap = ky * kernel + kx;
              const size_t group =
                  static_cast<size_t>(channel / kOutputBlock) * groups + tap / kCodesPerByte;
              const int byte = payload[group * kOutputBlock + channel % kOutputBlock];
              weight = static_cast<int8_t>(2 * (byte >> tap % kCodesPerByte * 2 & 3) - 3);
            }
            to[place_of(n) * 4 + i % 4] = weight;
          }
        }
      }
    }
  }
}

size_t scratch_bytes(const ConvShape&, int) { return 0; }

}  // namespace

namespace avx512vnni {

const ConvKernel kDepthwise{
    "u8s2_depthwise_2x2x64__avx512vnni", supports, prepared_bytes, prepare, scratch_bytes, run};

}  // namespace avx512vnni
}  // namespace mbq

#endif
