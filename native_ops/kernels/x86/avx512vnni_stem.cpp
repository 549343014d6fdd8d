// The first convolution: vpdpwssd multiplies two pixel values by two int16 weights for each of 16
// outputs. Pixels are widened to int16 in bands of rows, with the padding around them; a row of a
// window lies in one piece, so that pairs go over the ends of pixels.

#include "avx512vnni_layers.h"

#if defined(__AVX512VNNI__) && defined(__AVX512BW__) && defined(__AVX512VL__)

#include <immintrin.h>

#include "avx512vnni_packed.h"
#include "avx512vnni_tiles.h"

namespace mbq {
namespace {

// Rows of outputs whose pixels are widened together.
constexpr int kBandRows = 16;

int row_inputs(const ConvShape& shape) { return shape.kernel_width * shape.inputs; }

// A row of odd length ends with half a pair, whose weight is 0.
int row_pairs(const ConvShape& shape) { return (row_inputs(shape) + 1) / 2; }

int blocks_of(const ConvShape& shape) {
  return round_up(shape.outputs, kOutputBlock) / kOutputBlock;
}

int padded_elements(const ConvShape& shape) { return (shape.width + 2 * shape.pad) * shape.inputs; }

size_t row_bytes(const ConvShape& shape) {
  return round_up((padded_elements(shape) + 1) * static_cast<int>(sizeof(int16_t)), kVectorBytes);
}

size_t band_bytes(const ConvShape& shape) {
  const int rows = (kBandRows - 1) * shape.stride + shape.kernel_height;
  return rows * row_bytes(shape);
}

// The padding's pixels, `elements` values from the first channel on.
void fill_padding(const StemCall& call, int elements, int16_t* to) {
  const int inputs = call.shape.inputs;
  for (int i = 0, c = 0; i < elements; ++i) {
    to[i] = call.weights.pad_value[c];
    c = c + 1 == inputs ? 0 : c + 1;
  }
}

// Row y of the image, which may lie outside of it, with its padding.
void widen_row(const StemCall& call, int y, int16_t* to) {
  const ConvShape& shape = call.shape;
  to[padded_elements(shape)] = 0;
  if (y < 0 || y >= shape.height) {
    fill_padding(call, padded_elements(shape), to);
    return;
  }
  const int margin = shape.pad * shape.inputs, elements = shape.width * shape.inputs;
  fill_padding(call, margin, to);
  to += margin;
  const uint8_t* const from = call.image + static_cast<size_t>(y) * elements;
  for (int i = 0; i < elements; i += 32) {
    const int left = elements - i;
    const __mmask32 mask = left >= 32 ? ~__mmask32{0} : (__mmask32{1} << left) - 1;
    const __m256i bytes = _mm256_maskz_loadu_epi8(mask, from + i);
    _mm512_mask_storeu_epi16(to + i, mask, _mm512_cvtepu8_epi16(bytes));
  }
  fill_padding(call, margin, to + elements);
}

template <int Blocks>
void walk_band(const StemCall& call, const PixelRun& run, const Window& window, int block,
               const uint8_t* weights, int first_row) {
  const int first = block * kOutputBlock;
  if (GroupFinish<Blocks>::suffices(call.output, call.shape, first)) {
    for_accumulators<WordsByWords, Blocks>(
        run, window, weights, GroupFinish<Blocks>(call.output, call.shape, first, first_row));
  } else {
    for_accumulators<WordsByWords, Blocks>(
        run, window, weights, AnyFinish<Blocks>(call.output, call.shape, first, first_row));
  }
}

void walk_rows(void* context, int thread, int begin, int end) {
  const StemCall& call = *static_cast<const StemCall*>(context);
  const ConvShape& shape = call.shape;
  uint8_t* const band = static_cast<uint8_t*>(call.scratch) + thread * band_bytes(shape);
  const size_t row = row_bytes(shape);
  const Window window{shape.kernel_height, 1, row_pairs(shape), row, 0};
  const int blocks = blocks_of(shape), width = shape.out_width();
  PixelRun run{
      0, 0, width, band, shape.stride * row, shape.stride * shape.inputs * sizeof(int16_t)};
  for (int y = begin; y < end; y += kBandRows) {
    const int rows = end - y < kBandRows ? end - y : kBandRows;
    for (int i = 0; i < (rows - 1) * shape.stride + shape.kernel_height; ++i) {
      widen_row(call, y * shape.stride - shape.pad + i, reinterpret_cast<int16_t*>(band + i * row));
    }
    run.end = rows * width;
    const uint8_t* weights = static_cast<const uint8_t*>(call.prepared);
    for (int block = 0; block < blocks; block += kPairBlocks) {
      const bool pair = blocks - block >= kPairBlocks;
      (pair ? walk_band<2> : walk_band<1>)(call, run, window, block, weights, y);
      weights += (pair ? 2 : 1) * static_cast<size_t>(window.all_steps()) * kVectorBytes;
    }
  }
}

void run(const StemCall& call, const Parallel& parallel) {
  StemCall copy = call;
  parallel.run(parallel.self, call.shape.out_height(), walk_rows, &copy);
}

bool supports(const ConvShape&) { return true; }

size_t prepared_bytes(const ConvShape& shape) {
  return static_cast<size_t>(blocks_of(shape)) * shape.kernel_height * row_pairs(shape) *
         kVectorBytes;
}

// [pair of blocks][kernel row][pair of inputs][block][16 outputs][2]
void prepare(const ConvShape& shape, const StemWeights& weights, void* prepared) {
  const int blocks = blocks_of(shape), inputs = row_inputs(shape), pairs = row_pairs(shape);
  int16_t* to = static_cast<int16_t*>(prepared);
  for (int first = 0; first < blocks; first += kPairBlocks) {
    const int together = blocks - first < kPairBlocks ? blocks - first : kPairBlocks;
    for (int step = 0; step < shape.kernel_height * pairs; ++step) {
      const int row = step / pairs, pair = step % pairs;
      for (int lane = 0; lane < together * kOutputBlock; ++lane) {
        const int output = first * kOutputBlock + lane;
        for (int k = 2 * pair; k < 2 * pair + 2; ++k) {
          const size_t from = static_cast<size_t>(output) * shape.kernel_height + row;
          const bool present = output < shape.outputs && k < inputs;
          *to++ = present ? weights.weight[from * inputs + k] : int16_t{0};
        }
      }
    }
  }
}

size_t scratch_bytes(const ConvShape& shape, int threads) { return threads * band_bytes(shape); }

}  // namespace

namespace avx512vnni {

const StemKernel kStem{
    "u8s16_stem_direct_14x32__avx512vnni", supports, prepared_bytes, prepare, scratch_bytes, run};

}  // namespace avx512vnni
}  // namespace mbq

#endif
