// The first convolution. Where all weights fit a byte, vpdpbusd multiplies four pixel values by
// four of them for each of 16 outputs; else vpdpwssd two by two int16. Pixels are copied in bands
// of rows, widened where weights are, with the padding around them; a row of a window lies in one
// piece, so that groups go over the ends of pixels.

#include "avx512vnni_layers.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#include <cstring>
#include <type_traits>

#include "avx512vnni_packed.h"
#include "avx512vnni_tiles.h"

namespace mbq {
namespace {

// Rows of outputs whose pixels are copied together.
constexpr int kBandRows = 16;

int row_inputs(const ConvShape& shape) { return shape.kernel_width * shape.inputs; }

int blocks_of(const ConvShape& shape) {
  return round_up(shape.outputs, kOutputBlock) / kOutputBlock;
}

int padded_elements(const ConvShape& shape) { return (shape.width + 2 * shape.pad) * shape.inputs; }

// A kernel with weights of type W.
template <typename W>
struct Stem {
  using Pixel = std::conditional_t<sizeof(W) == 1, uint8_t, int16_t>;
  using Operands = std::conditional_t<sizeof(W) == 1, CodesByBytes, WordsByWords>;
  static constexpr int kGroup = kStepBytes / sizeof(W);
  static constexpr int kUsualStep = 2 * 3 * sizeof(Pixel);  // colours at stride 2
  static constexpr int kNextStep = 3 * sizeof(Pixel);       // and at stride 1

  // Whether groups end with pixels, which costs no step more and lets neighbours share them.
  static bool by_pixels(const ConvShape& shape) {
    return sizeof(W) == 1 && shape.inputs == 3 && shape.kernel_width == 3 && shape.stride == 1;
  }
  // Values that lie in one piece, each of which is cut into groups; weights are 0 behind its end.
  static int piece(const ConvShape& shape) {
    return by_pixels(shape) ? shape.inputs : row_inputs(shape);
  }
  static int row_groups(const ConvShape& shape) {
    return row_inputs(shape) / piece(shape) * (round_up(piece(shape), kGroup) / kGroup);
  }
  static Window window_of(const ConvShape& shape) {
    const int pieces = row_inputs(shape) / piece(shape);
    return {shape.kernel_height, pieces, row_groups(shape) / pieces, row_bytes(shape),
            piece(shape) * sizeof(Pixel)};
  }

  static size_t row_bytes(const ConvShape& shape) {
    const int elements = padded_elements(shape) + kGroup - 1;
    return round_up(elements * static_cast<int>(sizeof(Pixel)), kVectorBytes);
  }

  static size_t band_bytes(const ConvShape& shape) {
    const int rows = (kBandRows - 1) * shape.stride + shape.kernel_height;
    return rows * row_bytes(shape);
  }

  // The padding's pixels, `elements` values from the first channel on.
  static void fill_padding(const StemCall& call, int elements, Pixel* to) {
    const int inputs = call.shape.inputs;
    for (int i = 0, c = 0; i < elements; ++i) {
      to[i] = call.weights.pad_value[c];
      c = c + 1 == inputs ? 0 : c + 1;
    }
  }

  // Row y of the image, which may lie outside of it, with its padding.
  static void copy_row(const StemCall& call, int y, Pixel* to) {
    const ConvShape& shape = call.shape;
    for (int i = 0; i < kGroup - 1; ++i) to[padded_elements(shape) + i] = 0;
    if (y < 0 || y >= shape.height) {
      fill_padding(call, padded_elements(shape), to);
      return;
    }
    const int margin = shape.pad * shape.inputs, elements = shape.width * shape.inputs;
    fill_padding(call, margin, to);
    to += margin;
    const uint8_t* const from = call.image + static_cast<size_t>(y) * elements;
    if constexpr (sizeof(Pixel) == 1) {
      memcpy(to, from, elements);
    } else {
      for (int i = 0; i < elements; i += 32) {
        const int left = elements - i;
        const __mmask32 mask = left >= 32 ? ~__mmask32{0} : (__mmask32{1} << left) - 1;
        const __m256i bytes = _mm256_maskz_loadu_epi8(mask, from + i);
        _mm512_mask_storeu_epi16(to + i, mask, _mm512_cvtepu8_epi16(bytes));
      }
    }
    fill_padding(call, margin, to + elements);
  }

  // What `rows` rows of results read, from row y on.
  static void copy_rows(const StemCall& call, int y, int rows, uint8_t* band) {
    const ConvShape& shape = call.shape;
    for (int i = 0; i < (rows - 1) * shape.stride + shape.kernel_height; ++i) {
      copy_row(call, y * shape.stride - shape.pad + i,
               reinterpret_cast<Pixel*>(band + i * row_bytes(shape)));
    }
  }

  template <int Blocks>
  static void walk_band(const StemCall& call, const PixelRun& run, const Window& window, int block,
                        const uint8_t* weights, int first_row) {
    const int first = block * kOutputBlock;
    if (GroupFinish<Blocks>::suffices(call.output, call.shape, first)) {
      if constexpr (Blocks == 1 && sizeof(W) == 1) {
        if (by_pixels(call.shape)) {
          for_accumulators<Operands, Blocks, kNextStep>(
              run, window, weights, GroupFinish<Blocks>(call.output, call.shape, first, first_row));
          return;
        }
      }
      for_accumulators<Operands, Blocks, kUsualStep>(
          run, window, weights, GroupFinish<Blocks>(call.output, call.shape, first, first_row));
    } else {
      for_accumulators<Operands, Blocks>(
          run, window, weights, AnyFinish<Blocks>(call.output, call.shape, first, first_row));
    }
  }

  static void walk_rows(void* context, int thread, int begin, int end) {
    const StemCall& call = *static_cast<const StemCall*>(context);
    const ConvShape& shape = call.shape;
    uint8_t* const band = static_cast<uint8_t*>(call.scratch) + thread * band_bytes(shape);
    const size_t row = row_bytes(shape);
    const Window window = window_of(shape);
    const int blocks = blocks_of(shape), width = shape.out_width();
    PixelRun run{
        0, 0, width, band, shape.stride * row, shape.stride * shape.inputs * sizeof(Pixel)};
    for (int y = begin; y < end; y += kBandRows) {
      const int rows = end - y < kBandRows ? end - y : kBandRows;
      copy_rows(call, y, rows, band);
      run.end = rows * width;
      const uint8_t* weights = static_cast<const uint8_t*>(call.prepared);
      for (int block = 0; block < blocks; block += kPairBlocks) {
        const bool pair = blocks - block >= kPairBlocks;
        (pair ? walk_band<2> : walk_band<1>)(call, run, window, block, weights, y);
        weights += (pair ? 2 : 1) * static_cast<size_t>(window.all_steps()) * kVectorBytes;
      }
    }
  }

  static void run(const StemCall& call, const Parallel& parallel) {
    StemCall copy = call;
    parallel.run(parallel.self, call.shape.out_height(), walk_rows, &copy);
  }

  static bool supports(const ConvShape& shape, const StemWeights& weights) {
    return sizeof(W) == sizeof(int16_t) || fit_bytes(shape, weights);
  }

  static size_t prepared_bytes(const ConvShape& shape) {
    return static_cast<size_t>(blocks_of(shape)) * shape.kernel_height * row_groups(shape) *
           kVectorBytes;
  }

  // [pair of blocks][kernel row][group of inputs][block][16 outputs][group]
  static void prepare(const ConvShape& shape, const StemWeights& weights, void* prepared) {
    const int blocks = blocks_of(shape), inputs = row_inputs(shape), groups = row_groups(shape);
    const int values = piece(shape), piece_groups = round_up(values, kGroup) / kGroup;
    W* to = static_cast<W*>(prepared);
    for (int first = 0; first < blocks; first += kPairBlocks) {
      const int together = blocks - first < kPairBlocks ? blocks - first : kPairBlocks;
      for (int step = 0; step < shape.kernel_height * groups; ++step) {
        const int row = step / groups, group = step % groups;
        for (int lane = 0; lane < together * kOutputBlock; ++lane) {
          const int output = first * kOutputBlock + lane;
          const size_t from = static_cast<size_t>(output) * shape.kernel_height + row;
          const int first_value = group / piece_groups * values;
          for (int i = 0, k = group % piece_groups * kGroup; i < kGroup; ++i, ++k) {
            const bool present = output < shape.outputs && k < values;
            const size_t at = from * inputs + first_value + k;
            *to++ = present ? static_cast<W>(weights.weight[at]) : W{0};
          }
        }
      }
    }
  }

  static size_t scratch_bytes(const ConvShape& shape, int threads) {
    return threads * band_bytes(shape);
  }
};

// The stem and a max pool in one: accumulators are pooled before anything else is done to them.
// What follows is monotonous for each output, so that the largest result is that of the largest
// sum, or of the smallest where the scale is negative. There sums are complemented, which turns
// their order.
template <typename W>
struct PooledStem {
  using S = Stem<W>;

  static constexpr int kMostPooled = 8;  // rows

  static bool pools(const ConvShape& shape, const PoolShape& pool) {
    return shape.outputs % kOutputBlock == 0 && pool.kernel <= kMostPooled;
  }

  // Of a row of sums, all outputs of a pixel side by side.
  static size_t row_bytes(int width, int outputs) {
    return static_cast<size_t>(width) * outputs * sizeof(int32_t);
  }

  // Of one thread: pixels, sums of a row and a tile's outputs, the last rows of sums that were
  // pooled in x, and a row of results.
  static size_t thread_bytes(const ConvShape& shape, const PoolShape& pool) {
    return S::band_bytes(shape) + row_bytes(shape.out_width(), kPairBlocks * kOutputBlock) +
           (pool.kernel + 1) * row_bytes(pool.out_width(), shape.outputs);
  }

  static size_t scratch_bytes(const ConvShape& shape, const PoolShape& pool, int threads) {
    return threads * thread_bytes(shape, pool);
  }

  // All ones for outputs whose order turns.
  static __m512i turns(const float* scale) {
    const __mmask16 negative =
        _mm512_cmp_ps_mask(_mm512_loadu_ps(scale), _mm512_setzero_ps(), _CMP_LT_OQ);
    return _mm512_maskz_set1_epi32(negative, -1);
  }

  template <int Blocks>
  struct Store {
    static constexpr bool kNeedsPlaces = true;
    __m512i turned[Blocks];

    explicit Store(const float* scale) {
      for (int b = 0; b < Blocks; ++b) turned[b] = turns(scale + b * kOutputBlock);
    }
    template <int Pixels>
    [[gnu::always_inline]] void operator()(const __m512i (&acc)[Pixels][Blocks],
                                           uint8_t* const* to) const {
#pragma GCC unroll 28
      for (int i = 0; i < Pixels * Blocks; ++i) {
        const int b = i % Blocks;
        _mm512_store_si512(to[i / Blocks] + b * kVectorBytes,
                           _mm512_xor_si512(acc[i / Blocks][b], turned[b]));
      }
    }
  };

  // The part of a pool's window that lies inside the image, in one direction.
  struct Inside {
    int first, count;
    Inside(const PoolShape& pool, int position, int size) {
      const int begin = position * pool.stride - pool.pad, end = begin + pool.kernel;
      first = begin < 0 ? 0 : begin;
      count = (end < size ? end : size) - first;
    }
  };

  struct Walk {
    const StemCall* call;
    const StreamCall* after;
  };

  // A row of sums of some blocks of outputs, pooled in x to where `to` has its first pixel.
  template <int Blocks>
  static void pooled_sums(const Walk& walk, const PixelRun& run, const Window& window, int block,
                          const uint8_t* weights, uint8_t* sums, uint8_t* to) {
    constexpr size_t kPixel = Blocks * kVectorBytes;
    const StemCall& call = *walk.call;
    const PoolShape& pool = walk.after->pool;
    for_tiles<typename S::Operands, Blocks, S::kUsualStep>(
        run, window, weights, Store<Blocks>(call.output.scale + block * kOutputBlock),
        {sums, 0, kPixel}, [](int, int, int) {});
    to += static_cast<size_t>(block) * kVectorBytes;
    for (int x = 0; x < pool.out_width(); ++x, to += row_bytes(1, call.shape.outputs)) {
      const Inside inside(pool, x, run.width);
      const uint8_t* from = sums + inside.first * kPixel;
      __m512i most[Blocks];
#pragma GCC unroll 2
      for (int b = 0; b < Blocks; ++b) most[b] = _mm512_load_si512(from + b * kVectorBytes);
      for (int i = 1; i < inside.count; ++i) {
        from += kPixel;
#pragma GCC unroll 2
        for (int b = 0; b < Blocks; ++b) {
          most[b] = _mm512_max_epi32(most[b], _mm512_load_si512(from + b * kVectorBytes));
        }
      }
#pragma GCC unroll 2
      for (int b = 0; b < Blocks; ++b) _mm512_store_si512(to + b * kVectorBytes, most[b]);
    }
  }

  // Result y from the rows that were pooled in x.
  static void finish(const Walk& walk, int y, const uint8_t* ring, float* results) {
    const ConvShape& shape = walk.call->shape;
    const PoolShape& pool = walk.after->pool;
    const int outputs = shape.outputs, width = pool.out_width();
    const size_t row = row_bytes(width, outputs);
    const Inside inside(pool, y, shape.out_height());
    const uint8_t* rows[kMostPooled];
    for (int i = 0; i < inside.count; ++i) {
      rows[i] = ring + (inside.first + i) % pool.kernel * row;
    }
    for (size_t at = 0; at < row;) {
      for (int c = 0; c < outputs; c += kOutputBlock, at += kVectorBytes) {
        __m512i sum = _mm512_load_si512(rows[0] + at);
        for (int i = 1; i < inside.count; ++i) {
          sum = _mm512_max_epi32(sum, _mm512_load_si512(rows[i] + at));
        }
        const float* const scale = walk.call->output.scale + c;
        const __m512 exact = _mm512_cvtepi32_ps(_mm512_xor_si512(sum, turns(scale)));
        const __m512 value = _mm512_add_ps(_mm512_mul_ps(exact, _mm512_loadu_ps(scale)),
                                           _mm512_loadu_ps(walk.call->output.bias + c));
        _mm512_store_ps(results + at / sizeof(float), _mm512_max_ps(value, _mm512_setzero_ps()));
      }
    }
    StreamCall last = *walk.after;
    last.height = 1;
    last.width = width;
    last.channels = outputs;
    last.input = results;
    last.pool = {};
    if (last.stream != nullptr) last.stream += static_cast<size_t>(y) * width * last.kept;
    for (int i = 0; i < last.code_outputs; ++i) {
      last.codes[i].image.origin += y * last.codes[i].image.row;
    }
    avx512vnni::stream_row(last);
  }

  static void walk_rows(void* context, int thread, int begin, int end) {
    const Walk& walk = *static_cast<const Walk*>(context);
    const StemCall& call = *walk.call;
    const ConvShape& shape = call.shape;
    const PoolShape& pool = walk.after->pool;
    const int outputs = shape.outputs, width = shape.out_width(), height = shape.out_height();
    uint8_t* const band = static_cast<uint8_t*>(call.scratch) + thread * thread_bytes(shape, pool);
    uint8_t* const sums = band + S::band_bytes(shape);
    uint8_t* const ring = sums + row_bytes(width, kPairBlocks * kOutputBlock);
    const size_t ring_row = row_bytes(pool.out_width(), outputs);
    float* const results = reinterpret_cast<float*>(ring + pool.kernel * ring_row);

    const size_t row = S::row_bytes(shape);
    const Window window = S::window_of(shape);
    const int blocks = blocks_of(shape);
    const Inside last(pool, end - 1, height);
    const int last_row = last.first + last.count;
    int done = begin;
    for (int y = Inside(pool, begin, height).first; y < last_row; y += kBandRows) {
      const int rows = last_row - y < kBandRows ? last_row - y : kBandRows;
      S::copy_rows(call, y, rows, band);
      for (int i = 0; i < rows; ++i) {
        const PixelRun run{0,     width,
                           width, band + i * shape.stride * row,
                           0,     shape.stride * shape.inputs * sizeof(typename S::Pixel)};
        const uint8_t* weights = static_cast<const uint8_t*>(call.prepared);
        for (int block = 0; block < blocks; block += kPairBlocks) {
          const bool pair = blocks - block >= kPairBlocks;
          (pair ? pooled_sums<2> : pooled_sums<1>)(walk, run, window, block, weights, sums,
                                                   ring + (y + i) % pool.kernel * ring_row);
          weights += (pair ? 2 : 1) * static_cast<size_t>(window.all_steps()) * kVectorBytes;
        }
        for (; done < end; ++done) {
          const Inside needs(pool, done, height);
          if (needs.first + needs.count > y + i + 1) break;
          finish(walk, done, ring, results);
        }
      }
    }
  }

  static void run(const StemCall& call, const StreamCall& after, const Parallel& parallel) {
    Walk walk{&call, &after};
    parallel.run(parallel.self, after.pool.out_height(), walk_rows, &walk);
  }
};

template <typename W>
constexpr StemKernel kernel(const char* name) {
  using S = Stem<W>;
  using P = PooledStem<W>;
  return {name,   S::supports, S::prepared_bytes, S::prepare, S::scratch_bytes,
          S::run, P::pools,    P::scratch_bytes,  P::run};
}

}  // namespace

namespace avx512vnni {

const StemKernel kStemBytes = kernel<int8_t>("u8s8_stem_direct_14x32__avx512vnni");
const StemKernel kStem = kernel<int16_t>("u8s16_stem_direct_14x32__avx512vnni");

}  // namespace avx512vnni
}  // namespace mbq

#endif
