// Exact integer Winograd F(2x2,3x3) for codes of up to 6 bits: 3x3 convolutions at stride 1 with 4
// multiplications for each output instead of 9.
//
// Weights are multiplied by 2 on each side, U = (2G) w (2G)^T with the rows (2,0,0), (1,1,1),
// (1,-1,1), (0,0,2) of 2G: integers of at most 27, times 2 where avx512vnni_f2x2_tiles.h asks for
// it. The factor that remains goes into the scale, which a power of two changes exactly.

#include "avx512vnni_layers.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#include "avx512vnni_f2x2_weights.h"

namespace mbq {
namespace {

inline constexpr int kMaxCode = 63;  // V of tap (1,1) is up to 4 times that, in 8 bits

// V of a strip lives in L2 with the weights. Several threads share one V and split the outputs
// where weights are many: each then reads its part of them alone.
inline constexpr size_t kStripBytes = 256 * 1024;
// Beside so little U, V of a strip can live in L1.
inline constexpr size_t kFewWeightBytes = 20 * 1024;
inline constexpr size_t kSmallStripBytes = 16 * 1024;
inline constexpr size_t kSharedBytes = 512 * 1024;
inline constexpr size_t kManyWeightBytes = 512 * 1024;

int blocks_of(const ConvShape& shape) { return (shape.outputs + kOutputBlock - 1) / kOutputBlock; }

// U of a block of outputs.
size_t u_bytes(const ConvShape& shape) {
  return static_cast<size_t>(4 * kStepBytes) * (round_up(shape.inputs, 16) / 4);
}

using Multiply = void (*)(TileGroup& group);

// Full tiles of a group: 28 accumulators at most.
inline constexpr int kMaxTiles = 7;

template <int kBytes>
inline constexpr Multiply kMultiply[kMaxTiles + 1] = {
    nullptr,
    multiply_tiles<Tiles<1, 0>, kBytes>,
    multiply_tiles<Tiles<2, 0>, kBytes>,
    multiply_tiles<Tiles<3, 0>, kBytes>,
    multiply_tiles<Tiles<4, 0>, kBytes>,
    multiply_tiles<Tiles<5, 0>, kBytes>,
    multiply_tiles<Tiles<6, 0>, kBytes>,
    multiply_tiles<Tiles<7, 0>, kBytes>,
};

const Multiply* multiply_of(int bytes) {
  return bytes == 16 ? kMultiply<16> : bytes == 32 ? kMultiply<32> : kMultiply<64>;
}

// Groups for small maps of odd height, where tiles with one row of outputs are many: they save a
// sixteenth of the multiplications at 7x7.
struct OddGroup {
  int full, top;  // tiles with both rows and with one
  Multiply multiply;
};

template <int kFull, int kTop>
inline constexpr OddGroup kOddGroup{kFull, kTop, multiply_tiles<Tiles<kFull, kTop>, 64>};

struct OddMap {
  int rows, columns, groups;  // of tiles
  OddGroup group[2];
};
inline constexpr OddMap kOddMaps[] = {
    {2, 2, 1, {kOddGroup<2, 2>, {}}},
    {3, 3, 2, {kOddGroup<3, 2>, kOddGroup<3, 1>}},
    {4, 4, 2, {kOddGroup<6, 2>, kOddGroup<6, 2>}},
};

const OddMap* odd_map_of(const ConvShape& shape, int bytes) {
  if (bytes != 64 || shape.out_height() % 2 == 0) return nullptr;
  for (const OddMap& map : kOddMaps) {
    if ((shape.out_height() + 1) / 2 == map.rows && (shape.out_width() + 1) / 2 == map.columns) {
      return &map;
    }
  }
  return nullptr;
}

// How a call is cut. A strip is some rows of tiles whose V is kept at a time.
struct Plan {
  int bytes;          // channels of one tile in a chunk: 64, 32 or 16
  int lanes, chunks;  // of 16 channels; of `bytes` channels
  int rows, columns;  // of tiles
  int strip_rows;
  bool shared;  // one strip for all threads
  size_t stride, chunk_stride, v_bytes;

  Plan(const ConvShape& shape, int chunk_bytes, int threads) : bytes(chunk_bytes) {
    lanes = round_up(shape.inputs, 16) / 16;
    chunks = (16 * lanes + bytes - 1) / bytes;
    rows = (shape.out_height() + 1) / 2;
    columns = (shape.out_width() + 1) / 2;
    const size_t row_bytes = static_cast<size_t>(16) * bytes * chunks * columns;
    shared = threads > 1 && row_bytes * rows <= kSharedBytes &&
             blocks_of(shape) * u_bytes(shape) >= kManyWeightBytes;
    const size_t most =
        blocks_of(shape) * u_bytes(shape) <= kFewWeightBytes ? kSmallStripBytes : kStripBytes;
    const size_t fitting = most / row_bytes;
    strip_rows = shared || fitting >= static_cast<size_t>(rows) ? rows
                 : fitting > 0                                  ? static_cast<int>(fitting)
                                                                : 1;
    // An odd number of cache lines, so that streams do not share the same few sets of the cache;
    // the transform may write up to a line behind the tiles.
    const size_t lines = (static_cast<size_t>(strip_rows) * columns * bytes + 127) / 64;
    stride = (lines | 1) * 64;
    chunk_stride = 16 * stride;
    v_bytes = chunks * chunk_stride;
  }

  int strip_tiles() const { return strip_rows * columns; }
  size_t place_bytes() const {
    const size_t each = sizeof(TilePlace) + sizeof(uint16_t);
    return (each * strip_tiles() + 63) / 64 * 64;
  }
  size_t strip_bytes() const { return v_bytes + place_bytes(); }
};

// Channels of a tile in a vector; neighbouring pixels share one where nothing lies between them.
int chunk_bytes(const ConvShape& shape, size_t pixel) {
  if (shape.inputs <= 16 && pixel == 16) return 16;
  if (shape.inputs <= 32 && pixel == 32) return 32;
  return 64;
}

bool supports(const ConvShape& shape, int highest) {
  // U up to 54 in int8 and V up to 4 * highest in uint8 hold by that; 8 times the sum in int32:
  constexpr int kMostInputs = 0x7fffffff / (8 * 9 * 3 * kMaxCode);
  return shape.kernel_height == 3 && shape.kernel_width == 3 && shape.stride == 1 &&
         highest <= kMaxCode && shape.inputs <= kMostInputs && shape.out_height() > 0 &&
         shape.out_width() > 0 && shape.out_height() < 32768 && shape.out_width() < 32768;
}

void make_u(const ConvShape& shape, const uint8_t* payload, int block, uint8_t* to) {
  make_u<WeightTransform>(shape, payload_of(shape, payload, block), to);
}

// Start values of all blocks, then U of all blocks.
size_t start_bytes(const ConvShape& shape) {
  return static_cast<size_t>(blocks_of(shape)) * kStartBytes;
}
void prepare_start(const ConvShape& shape, const uint8_t* payload, void* prepared) {
  for (int block = 0; block < blocks_of(shape); ++block) {
    make_start_values(payload_of(shape, payload, block), shape.inputs,
                      static_cast<uint8_t*>(prepared) + block * kStartBytes);
  }
}

size_t prepared_bytes(const ConvShape& shape) {
  return start_bytes(shape) + blocks_of(shape) * u_bytes(shape);
}
void prepare(const ConvShape& shape, const uint8_t* payload, void* prepared) {
  prepare_start(shape, payload, prepared);
  uint8_t* u = static_cast<uint8_t*>(prepared) + start_bytes(shape);
  for (int block = 0; block < blocks_of(shape); ++block, u += u_bytes(shape)) {
    make_u(shape, payload, block, u);
  }
}

struct Walk {
  const ConvCall& call;
  Plan plan;
  const Multiply* multiply;
  const OddMap* odd;  // or null
  int threads;
  avx512vnni::MakeU make_u;  // or null: U is prepared

  uint8_t* strip(int thread) const {
    return static_cast<uint8_t*>(call.scratch) + thread * plan.strip_bytes();
  }
  // U of a block: prepared, or made here in memory of the thread's own.
  const uint8_t* u_of(int thread, int block) const {
    const size_t bytes = u_bytes(call.shape);
    if (make_u == nullptr) {
      return static_cast<const uint8_t*>(call.prepared) + start_bytes(call.shape) + block * bytes;
    }
    uint8_t* const made = strip(plan.shared ? 1 : threads) + thread * bytes;
    make_u(call.shape, call.payload, block, made);
    return made;
  }
  // The next block's weights, of which U will be made, while so many groups are multiplied.
  Ahead ahead_of(int block, int groups) const {
    if (make_u == nullptr || block + 1 >= blocks_of(call.shape)) return {};
    return {payload_of(call.shape, call.payload, block + 1), packed_block_bytes(call.shape),
            groups * TileGroup::fetches(plan.chunks)};
  }
  TilePlace* places(uint8_t* strip) const {
    return reinterpret_cast<TilePlace*>(strip + plan.v_bytes);
  }
  uint16_t* slots(uint8_t* strip) const {
    return reinterpret_cast<uint16_t*>(places(strip) + plan.strip_tiles());
  }

  // Where V of each tile is kept: in the order in which groups take them.
  void place_tiles(uint8_t* strip, int first_row, int rows) const {
    TilePlace* const place = places(strip);
    uint16_t* const slot = slots(strip);
    for (int r = 0, tile = 0; r < rows; ++r) {
      for (int c = 0; c < plan.columns; ++c, ++tile) {
        const int to = odd == nullptr ? tile : odd_slot(tile);
        slot[tile] = static_cast<uint16_t>(to);
        place[to] = {static_cast<int16_t>(2 * (first_row + r)), static_cast<int16_t>(2 * c)};
      }
    }
  }

  // Groups take full tiles, then tiles of the last row.
  int odd_slot(int tile) const {
    const OddGroup& first = odd->group[0];
    const int full = (plan.rows - 1) * plan.columns;
    if (tile < full) return tile < first.full ? tile : tile + first.top;
    const int top = tile - full;
    return top < first.top ? first.full + top : tile;
  }

  // Rows begin .. end of tiles of a strip that starts at row `first` of the image.
  void transform(uint8_t* strip, int first, int begin, int end) const {
    const CodeImage& image = call.input;
    const auto run = plan.bytes == 16   ? RowTransform<16>::run
                     : plan.bytes == 32 ? RowTransform<32>::run
                                        : RowTransform<64>::run;
    const ptrdiff_t pad = call.shape.pad;
    for (int r = begin; r < end; ++r) {
      const uint8_t* const from = image.origin +
                                  (2 * (first + r) - pad) * static_cast<ptrdiff_t>(image.row) -
                                  pad * static_cast<ptrdiff_t>(image.pixel);
      const uint16_t* const slot = slots(strip) + static_cast<size_t>(r) * plan.columns;
      for (int chunk = 0; chunk < plan.chunks; ++chunk) {
        run(from + static_cast<size_t>(chunk) * 64, image.row, image.pixel, plan.columns, slot,
            strip + chunk * plan.chunk_stride, plan.stride);
      }
    }
  }

  int groups_of(int tiles) const {
    return odd != nullptr ? odd->groups : (tiles + kMaxTiles - 1) / kMaxTiles;
  }

  // Multiplies pieces begin .. end of `tiles` tiles: blocks of outputs, and groups in them.
  void multiply_pieces(int thread, uint8_t* strip, int tiles, int begin, int end) const {
    const int groups = groups_of(tiles);
    while (begin < end) {
      const int block = begin / groups, from = begin % groups;
      const int to = end - begin < groups - from ? from + end - begin : groups;
      multiply_block(thread, strip, block, tiles, groups, from, to);
      begin += to - from;
    }
  }

  void multiply_block(int thread, uint8_t* strip, int block, int tiles, int groups, int from,
                      int to) const {
    const ConvShape& shape = call.shape;
    const TileFinish finish(call.output, shape, block * kOutputBlock);
    __m512i sums[4 * kMaxTiles];
    TileGroup group{nullptr,
                    plan.stride,
                    plan.chunk_stride,
                    plan.lanes,
                    static_cast<const uint8_t*>(call.prepared) + block * kStartBytes,
                    u_of(thread, block),
                    sums,
                    ahead_of(block, groups)};
    // Groups of nearly the same size: group g begins at tiles * g / groups, without a division
    // each.
    const int least = tiles / groups, more = tiles % groups;
    int first = static_cast<int>(static_cast<int64_t>(tiles) * from / groups);
    int rest = static_cast<int>(static_cast<int64_t>(tiles) * from % groups);
    if (odd != nullptr) first = from == 0 ? 0 : odd->group[0].full + odd->group[0].top;
    for (int g = from, size; g < to; ++g, first += size) {
      OddGroup here;
      if (odd != nullptr) {
        here = odd->group[g];
        size = here.full + here.top;
      } else {
        size = least;
        rest += more;
        if (rest >= groups) rest -= groups, ++size;
        here = {size, 0, multiply[size]};
      }
      group.v = strip + static_cast<size_t>(first) * plan.bytes;
      here.multiply(group);
      const TilePlace* const place = places(strip) + first;
      if (call.output.direct) {
        finish.run<true>(sums, place, here.full, here.top);
      } else {
        finish.run<false>(sums, place, here.full, here.top);
      }
    }
  }

  // Each thread transforms and multiplies rows of its own.
  static void run_strips(void* context, int thread, int begin, int end) {
    Walk walk = *static_cast<const Walk*>(context);
    if (end - begin != walk.plan.rows || walk.plan.strip_rows != walk.plan.rows) {
      walk.odd = nullptr;
    }
    uint8_t* const strip = walk.strip(thread);
    const int blocks = blocks_of(walk.call.shape);
    while (begin < end) {
      const int left = end - begin;
      const int strips = (left + walk.plan.strip_rows - 1) / walk.plan.strip_rows;
      const int rows = (left + strips - 1) / strips;
      const int tiles = rows * walk.plan.columns;
      walk.place_tiles(strip, begin, rows);
      walk.transform(strip, begin, 0, rows);
      walk.multiply_pieces(thread, strip, tiles, 0, blocks * walk.groups_of(tiles));
      begin += rows;
    }
  }

  // All threads transform for all, then each multiplies its outputs.
  static void transform_shared(void* context, int, int begin, int end) {
    const Walk& walk = *static_cast<const Walk*>(context);
    walk.transform(walk.strip(0), 0, begin, end);
  }
  static void multiply_shared(void* context, int thread, int begin, int end) {
    const Walk& walk = *static_cast<const Walk*>(context);
    walk.multiply_pieces(thread, walk.strip(0), walk.plan.strip_tiles(), begin, end);
  }
};

size_t scratch_bytes(const ConvShape& shape, int threads) {
  size_t most = 0;
  for (int bytes = 16; bytes <= 64; bytes *= 2) {
    const Plan plan(shape, bytes, threads);
    const size_t needed = plan.strip_bytes() * (plan.shared ? 1 : threads);
    if (needed > most) most = needed;
  }
  return most;
}

// Weights stay packed: U is made, a block of outputs at a time, in every run. It is read from L2
// then, where prepared weights of a large network come from further away.
size_t unpacking_scratch_bytes(const ConvShape& shape, int threads) {
  return scratch_bytes(shape, threads) + threads * u_bytes(shape);
}

void run(const ConvCall& call, const Parallel& parallel, avx512vnni::MakeU make_u) {
  const int bytes = chunk_bytes(call.shape, call.input.pixel);
  Walk walk{call,
            Plan(call.shape, bytes, parallel.threads),
            multiply_of(bytes),
            odd_map_of(call.shape, bytes),
            parallel.threads,
            make_u};
  if (!walk.plan.shared) {
    parallel.run(parallel.self, walk.plan.rows, Walk::run_strips, &walk);
    return;
  }
  const int tiles = walk.plan.strip_tiles();
  walk.place_tiles(walk.strip(0), 0, walk.plan.rows);
  parallel.run(parallel.self, walk.plan.rows, Walk::transform_shared, &walk);
  parallel.run(parallel.self, blocks_of(call.shape) * walk.groups_of(tiles), Walk::multiply_shared,
               &walk);
}

void run_prepared(const ConvCall& call, const Parallel& parallel) { run(call, parallel, nullptr); }
void run_unpacking(const ConvCall& call, const Parallel& parallel) { run(call, parallel, make_u); }

}  // namespace

namespace avx512vnni {

void run_f2x2_unpacking(const ConvCall& call, const Parallel& parallel, MakeU make_u) {
  run(call, parallel, make_u);
}

const ConvKernel kF2x2{"u8s2_conv3x3s1_f2x2_7x16__avx512vnni",
                       supports,
                       prepared_bytes,
                       prepare,
                       scratch_bytes,
                       run_prepared};
const ConvKernel kF2x2Unpacking{"u8s2_conv3x3s1_f2x2_unpacking_7x16__avx512vnni",
                                supports,
                                start_bytes,
                                prepare_start,
                                unpacking_scratch_bytes,
                                run_unpacking};

}  // namespace avx512vnni
}  // namespace mbq

#endif
