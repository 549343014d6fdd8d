// The layers in plain C++ for any CPU: loops over 16 outputs that compilers keep in vectors.
//
// Products of a code and a weight are at most 3 * 255, so 42 of them fit int16, which every vector
// unit multiplies and adds at twice the rate of int32. Sums are widened after that many.

#include <bit>
#include <cstring>

#include "layers.h"

namespace mbq {
namespace {

// Eight lanes of int16, a vector register or two on most CPUs. The compiler's vectors rather than
// arrays, because arrays of accumulators end up in memory.
using Lanes = int16_t __attribute__((vector_size(16)));
constexpr int kLanes = 8;
constexpr int kBlockLanes = kOutputBlock / kLanes;
constexpr int kNarrowProducts = 32767 / (3 * 255);
constexpr int kTilePixels = 4;

size_t align(size_t bytes) { return (bytes + 63) / 64 * 64; }

Lanes load(const int16_t* from) {
  Lanes lanes;
  std::memcpy(&lanes, from, sizeof lanes);
  return lanes;
}

Lanes spread(int value) {
  const auto v = static_cast<int16_t>(value);
  return Lanes{v, v, v, v, v, v, v, v};
}

// Rounding after clipping gives the same code, as the bounds are whole; in [0, 255] the addition
// rounds to nearest even and leaves the code in the lowest bits.
uint8_t to_code(float value, float lowest, float highest) {
  const float low = value > lowest ? value : lowest;
  const float clipped = low > highest ? highest : low;
  return static_cast<uint8_t>(std::bit_cast<uint32_t>(clipped + 0x1.8p23f));
}

void write_codes(const float* values, int count, float scale, float offset,
                 const CodeOutput& output, uint8_t* to) {
  const auto lowest = static_cast<float>(output.lowest);
  const auto highest = static_cast<float>(output.highest);
  for (int i = 0; i < count; ++i) {
    const float scaled = values[i] * scale;
    to[i] = to_code(scaled + offset, lowest, highest);
  }
}

uint8_t* pixel_at(const CodeImage& image, int y, int x) {
  return image.origin + static_cast<ptrdiff_t>(y) * static_cast<ptrdiff_t>(image.row) +
         static_cast<ptrdiff_t>(x) * static_cast<ptrdiff_t>(image.pixel);
}

// Turns the accumulators of `count` outputs from `first` of one pixel into what the layer writes.
void finish(const int32_t* sums, const ConvShape& shape, int y, int x, int first, int count,
            const LayerOutput& output) {
  float values[kOutputBlock];
  for (int i = 0; i < count; ++i) {
    const float scaled = static_cast<float>(sums[i]) * output.scale[first + i];
    values[i] = scaled + output.bias[first + i];
  }
  if (output.direct) {
    const auto lowest = static_cast<float>(output.codes[0].lowest);
    const auto highest = static_cast<float>(output.codes[0].highest);
    uint8_t* const to = pixel_at(output.codes[0].image, y, x) + first;
    for (int i = 0; i < count; ++i) to[i] = to_code(values[i], lowest, highest);
    return;
  }
  const size_t at =
      (static_cast<size_t>(y) * shape.out_width() + x) * shape.outputs + static_cast<size_t>(first);
  if (output.residual != nullptr) {
    for (int i = 0; i < count; ++i) values[i] += output.residual[at + i];
  }
  if (output.relu) {
    for (int i = 0; i < count; ++i) values[i] = values[i] > 0.0f ? values[i] : 0.0f;
  }
  if (output.stream != nullptr) std::memcpy(output.stream + at, values, count * sizeof(float));
  for (int k = 0; k < output.code_outputs; ++k) {
    const CodeOutput& codes = output.codes[k];
    write_codes(values, count, codes.scale, codes.offset, codes,
                pixel_at(codes.image, y, x) + first);
  }
}

// What a task over rows needs; scratch is divided among threads.
template <typename Call>
struct Job {
  const Call& call;
  size_t thread_scratch;

  int16_t* scratch(int thread) const {
    return reinterpret_cast<int16_t*>(static_cast<uint8_t*>(call.scratch) +
                                      thread_scratch * static_cast<size_t>(thread));
  }
};

bool supports_all(const ConvShape&, int) { return true; }
size_t nothing_prepared(const ConvShape&) { return 0; }

// ---- Convolution: a tile of pixels by 16 outputs.

size_t conv_thread_scratch(const ConvShape& shape) {
  return align(static_cast<size_t>(shape.kernel_height) * shape.kernel_width * shape.inputs *
               kOutputBlock * sizeof(int16_t));
}

size_t conv_scratch(const ConvShape& shape, int threads) {
  return conv_thread_scratch(shape) * static_cast<size_t>(threads);
}

// Weights of one block as [tap, input, 16 outputs].
void unpack(const ConvShape& shape, const uint8_t* payload, int16_t* weights) {
  const int groups = round_up(shape.inputs, kCodesPerByte) / kCodesPerByte;
  for (int tap = 0; tap < shape.kernel_height * shape.kernel_width; ++tap) {
    for (int c = 0; c < shape.inputs; ++c, weights += kOutputBlock) {
      const uint8_t* const from = payload + (tap * groups + c / kCodesPerByte) * kOutputBlock;
      const int shift = c % kCodesPerByte * 2;
      for (int o = 0; o < kOutputBlock; ++o) {
        weights[o] = static_cast<int16_t>(2 * (from[o] >> shift & 3) - 3);
      }
    }
  }
}

template <int pixels>
void widen(Lanes (&narrow)[pixels][kBlockLanes], int32_t (&sums)[pixels][kOutputBlock]) {
  for (int p = 0; p < pixels; ++p) {
    int16_t values[kOutputBlock];
    std::memcpy(values, narrow[p], sizeof values);
    for (int o = 0; o < kOutputBlock; ++o) sums[p][o] += values[o];
    for (int l = 0; l < kBlockLanes; ++l) narrow[p][l] = spread(0);
  }
}

template <int pixels>
void conv_tile(const ConvCall& call, const int16_t* weights, int y, int x, int first, int count) {
  const ConvShape& shape = call.shape;
  const size_t step = call.input.pixel * static_cast<size_t>(shape.stride);
  int32_t sums[pixels][kOutputBlock] = {};
  Lanes narrow[pixels][kBlockLanes] = {};
  int room = kNarrowProducts;
  for (int ky = 0; ky < shape.kernel_height; ++ky) {
    for (int kx = 0; kx < shape.kernel_width; ++kx) {
      const uint8_t* codes = pixel_at(call.input, y * shape.stride + ky - shape.pad,
                                      x * shape.stride + kx - shape.pad);
      for (int left = shape.inputs; left > 0;) {
        const int now = left < room ? left : room;
        for (int c = 0; c < now; ++c, weights += kOutputBlock) {
          for (int l = 0; l < kBlockLanes; ++l) {
            const Lanes weight = load(weights + l * kLanes);
            for (int p = 0; p < pixels; ++p) narrow[p][l] += spread(codes[c + p * step]) * weight;
          }
        }
        codes += now;
        left -= now;
        room -= now;
        if (room == 0) {
          widen<pixels>(narrow, sums);
          room = kNarrowProducts;
        }
      }
    }
  }
  widen<pixels>(narrow, sums);
  for (int p = 0; p < pixels; ++p) finish(sums[p], shape, y, x + p, first, count, call.output);
}

void conv_rows(void* context, int thread, int begin, int end) {
  const Job<ConvCall>& job = *static_cast<const Job<ConvCall>*>(context);
  const ConvCall& call = job.call;
  const ConvShape& shape = call.shape;
  int16_t* const weights = job.scratch(thread);
  const size_t block_bytes =
      packed_payload_bytes(shape) / (round_up(shape.outputs, kOutputBlock) / kOutputBlock);
  const uint8_t* payload = call.payload;
  for (int first = 0; first < shape.outputs; first += kOutputBlock, payload += block_bytes) {
    const int left = shape.outputs - first;
    const int count = left < kOutputBlock ? left : kOutputBlock;
    unpack(shape, payload, weights);
    const int width = shape.out_width();
    for (int y = begin; y < end; ++y) {
      int x = 0;
      for (; x + kTilePixels <= width; x += kTilePixels) {
        conv_tile<kTilePixels>(call, weights, y, x, first, count);
      }
      for (; x + 2 <= width; x += 2) conv_tile<2>(call, weights, y, x, first, count);
      if (x < width) conv_tile<1>(call, weights, y, x, first, count);
    }
  }
}

void conv(const ConvCall& call, const Parallel& parallel) {
  Job<ConvCall> job{call, conv_thread_scratch(call.shape)};
  parallel.run(parallel.self, call.shape.out_height(), conv_rows, &job);
}

// ---- Depthwise: one pixel by 16 channels, sums of at most 25 products in int16.

size_t depthwise_thread_scratch(const ConvShape& shape) {
  return align(static_cast<size_t>(shape.kernel_height) * shape.kernel_width * kOutputBlock *
               sizeof(int16_t));
}

size_t depthwise_scratch(const ConvShape& shape, int threads) {
  return depthwise_thread_scratch(shape) * static_cast<size_t>(threads);
}

void depthwise_pixel(const ConvCall& call, const int16_t* weights, int y, int x, int first,
                     int count) {
  const ConvShape& shape = call.shape;
  int16_t sums[kOutputBlock] = {};
  for (int ky = 0; ky < shape.kernel_height; ++ky) {
    const uint8_t* codes =
        pixel_at(call.input, y * shape.stride + ky - shape.pad, x * shape.stride - shape.pad) +
        first;
    // All 16 lanes: what follows the channels may be read and is not written.
    for (int kx = 0; kx < shape.kernel_width; ++kx, codes += call.input.pixel) {
      for (int c = 0; c < kOutputBlock; ++c) {
        sums[c] = static_cast<int16_t>(sums[c] + codes[c] * weights[c]);
      }
      weights += kOutputBlock;
    }
  }
  int32_t wide[kOutputBlock];
  for (int c = 0; c < kOutputBlock; ++c) wide[c] = sums[c];
  finish(wide, shape, y, x, first, count, call.output);
}

void depthwise_rows(void* context, int thread, int begin, int end) {
  const Job<ConvCall>& job = *static_cast<const Job<ConvCall>*>(context);
  const ConvCall& call = job.call;
  const ConvShape& shape = call.shape;
  int16_t* const weights = job.scratch(thread);
  const int taps = shape.kernel_height * shape.kernel_width;
  const int groups = round_up(taps, kCodesPerByte) / kCodesPerByte;
  const uint8_t* payload = call.payload;
  for (int first = 0; first < shape.outputs; first += kOutputBlock) {
    const int left = shape.outputs - first;
    for (int tap = 0; tap < taps; ++tap) {
      const uint8_t* const from = payload + tap / kCodesPerByte * kOutputBlock;
      const int shift = tap % kCodesPerByte * 2;
      for (int c = 0; c < kOutputBlock; ++c) {
        weights[tap * kOutputBlock + c] = static_cast<int16_t>(2 * (from[c] >> shift & 3) - 3);
      }
    }
    payload += groups * kOutputBlock;
    for (int y = begin; y < end; ++y) {
      for (int x = 0; x < shape.out_width(); ++x) {
        depthwise_pixel(call, weights, y, x, first, left < kOutputBlock ? left : kOutputBlock);
      }
    }
  }
}

void depthwise(const ConvCall& call, const Parallel& parallel) {
  Job<ConvCall> job{call, depthwise_thread_scratch(call.shape)};
  parallel.run(parallel.self, call.shape.out_height(), depthwise_rows, &job);
}

// ---- First convolution: a pixel's window, then all outputs.

int window_size(const ConvShape& shape) {
  return shape.kernel_height * shape.kernel_width * shape.inputs;
}

// Weights as [window, outputs], outputs filled up to whole blocks.
size_t stem_prepared(const ConvShape& shape) {
  return static_cast<size_t>(window_size(shape)) * round_up(shape.outputs, kOutputBlock) *
         sizeof(int16_t);
}

void stem_prepare(const ConvShape& shape, const StemWeights& weights, void* prepared) {
  int16_t* to = static_cast<int16_t*>(prepared);
  const int size = window_size(shape);
  for (int i = 0; i < size; ++i) {
    for (int o = 0; o < round_up(shape.outputs, kOutputBlock); ++o) {
      *to++ = o < shape.outputs ? weights.weight[static_cast<size_t>(o) * size + i]
                                : static_cast<int16_t>(0);
    }
  }
}

size_t stem_thread_scratch(const ConvShape& shape) {
  return align(static_cast<size_t>(window_size(shape)));
}

size_t stem_scratch(const ConvShape& shape, int threads) {
  return stem_thread_scratch(shape) * static_cast<size_t>(threads);
}

void gather_window(const StemCall& call, int y, int x, uint8_t* window) {
  const ConvShape& shape = call.shape;
  for (int ky = 0; ky < shape.kernel_height; ++ky) {
    for (int kx = 0; kx < shape.kernel_width; ++kx, window += shape.inputs) {
      const int iy = y * shape.stride + ky - shape.pad, ix = x * shape.stride + kx - shape.pad;
      const bool inside = iy >= 0 && iy < shape.height && ix >= 0 && ix < shape.width;
      const uint8_t* const from =
          inside ? call.image + (static_cast<size_t>(iy) * shape.width + ix) * shape.inputs
                 : call.weights.pad_value;
      for (int c = 0; c < shape.inputs; ++c) window[c] = from[c];
    }
  }
}

void stem_rows(void* context, int thread, int begin, int end) {
  const Job<StemCall>& job = *static_cast<const Job<StemCall>*>(context);
  const StemCall& call = job.call;
  const ConvShape& shape = call.shape;
  uint8_t* const window = reinterpret_cast<uint8_t*>(job.scratch(thread));
  const int16_t* const weights = static_cast<const int16_t*>(call.prepared);
  const int size = window_size(shape), row = round_up(shape.outputs, kOutputBlock);
  for (int y = begin; y < end; ++y) {
    for (int x = 0; x < shape.out_width(); ++x) {
      gather_window(call, y, x, window);
      for (int first = 0; first < shape.outputs; first += kOutputBlock) {
        int32_t sums[kOutputBlock] = {};
        const int16_t* from = weights + first;
        for (int i = 0; i < size; ++i, from += row) {
          const auto pixel = static_cast<int16_t>(window[i]);
          for (int o = 0; o < kOutputBlock; ++o) sums[o] += pixel * from[o];
        }
        const int left = shape.outputs - first;
        finish(sums, shape, y, x, first, left < kOutputBlock ? left : kOutputBlock, call.output);
      }
    }
  }
}

bool stem_supports(const ConvShape&) { return true; }

void stem(const StemCall& call, const Parallel& parallel) {
  Job<StemCall> job{call, stem_thread_scratch(call.shape)};
  parallel.run(parallel.self, call.shape.out_height(), stem_rows, &job);
}

// ---- Streams, pools, head.

// The first pixel of a window that lies inside, and the first behind it.
struct Window {
  int top, left, bottom, right;

  Window(const PoolShape& pool, int y, int x)
      : top(y * pool.stride - pool.pad),
        left(x * pool.stride - pool.pad),
        bottom(top + pool.kernel < pool.height ? top + pool.kernel : pool.height),
        right(left + pool.kernel < pool.width ? left + pool.kernel : pool.width) {
    if (top < 0) top = 0;
    if (left < 0) left = 0;
  }
};

constexpr int kStreamBlock = 64;

void stream_pixel(const StreamCall& call, int y, int x, size_t at) {
  const PoolShape none{call.height, call.width, call.channels, 1, 1, 0};
  const Window window(call.pool.kernel == 0 ? none : call.pool, y, x);
  for (int first = 0; first < call.kept; first += kStreamBlock) {
    float values[kStreamBlock] = {};
    const int left = call.kept - first, there = call.channels - first;
    const int count = left < kStreamBlock ? left : kStreamBlock;
    const int read = there < count ? there : count;  // zeros where the stream has fewer
    for (int iy = window.top; iy < window.bottom; ++iy) {
      for (int ix = window.left; ix < window.right; ++ix) {
        const float* const from =
            call.input + (static_cast<size_t>(iy) * call.width + ix) * call.channels + first;
        const bool start = iy == window.top && ix == window.left;
        for (int c = 0; c < read; ++c) {
          values[c] = start || from[c] > values[c] ? from[c] : values[c];
        }
      }
    }
    if (call.stream != nullptr) {
      std::memcpy(call.stream + at * call.kept + first, values, count * sizeof(float));
    }
    for (int k = 0; k < call.code_outputs; ++k) {
      const CodeOutput& codes = call.codes[k];
      write_codes(values, count, codes.scale, codes.offset, codes,
                  pixel_at(codes.image, y, x) + first);
    }
  }
}

void stream_rows(void* context, int, int begin, int end) {
  const StreamCall& call = *static_cast<const StreamCall*>(context);
  const int width = call.pool.kernel == 0 ? call.width : call.pool.out_width();
  for (int y = begin; y < end; ++y) {
    for (int x = 0; x < width; ++x) {
      stream_pixel(call, y, x, static_cast<size_t>(y) * width + x);
    }
  }
}

void stream(const StreamCall& call, const Parallel& parallel) {
  StreamCall copy = call;
  const int height = call.pool.kernel == 0 ? call.height : call.pool.out_height();
  parallel.run(parallel.self, height, stream_rows, &copy);
}

struct PoolJob {
  PoolShape shape;
  CodeImage input, output;
};

void pool_rows(void* context, int, int begin, int end) {
  const PoolJob& job = *static_cast<const PoolJob*>(context);
  const auto channels = static_cast<size_t>(job.shape.channels);
  for (int y = begin; y < end; ++y) {
    for (int x = 0; x < job.shape.out_width(); ++x) {
      const Window window(job.shape, y, x);
      uint8_t* const to = pixel_at(job.output, y, x);
      std::memcpy(to, pixel_at(job.input, window.top, window.left), channels);
      for (int iy = window.top; iy < window.bottom; ++iy) {
        for (int ix = window.left; ix < window.right; ++ix) {
          const uint8_t* const from = pixel_at(job.input, iy, ix);
          for (size_t c = 0; c < channels; ++c) to[c] = from[c] > to[c] ? from[c] : to[c];
        }
      }
    }
  }
}

void pool_codes(const PoolShape& shape, const CodeImage& input, const CodeImage& output,
                const Parallel& parallel) {
  PoolJob job{shape, input, output};
  parallel.run(parallel.self, shape.out_height(), pool_rows, &job);
}

void average_streams(const HeadCall& call) {
  const int channels = call.channels;
  float* const mean = call.pooled;
  float* const total = call.pooled + channels;
  const float by_pixels = 1.0f / static_cast<float>(call.pixels);
  for (int c = 0; c < channels; ++c) mean[c] = 0.0f;
  for (int s = 0; s < call.count; ++s) {
    for (int c = 0; c < channels; ++c) total[c] = 0.0f;
    const float* from = call.streams[s];
    for (int p = 0; p < call.pixels; ++p, from += channels) {
      for (int c = 0; c < channels; ++c) total[c] += from[c];
    }
    for (int c = 0; c < channels; ++c) mean[c] += total[c] * by_pixels;
  }
  if (!call.mean) return;
  const float by_streams = 1.0f / static_cast<float>(call.count);
  for (int c = 0; c < channels; ++c) mean[c] *= by_streams;
}

void classify(const HeadCall& call, const Parallel&) {
  constexpr int kPartialSums = 16;  // channel c adds to sum c % 16
  average_streams(call);
  const float* weight = call.weight;
  for (int n = 0; n < call.classes; ++n, weight += call.channels) {
    float partial[kPartialSums] = {};
    for (int first = 0; first < call.channels; first += kPartialSums) {
      const int left = call.channels - first;
      for (int i = 0; i < (left < kPartialSums ? left : kPartialSums); ++i) {
        partial[i] += call.pooled[first + i] * weight[first + i];
      }
    }
    float sum = 0.0f;
    for (int i = 0; i < kPartialSums; ++i) sum += partial[i];
    call.logits[n] = sum + call.bias[n];
  }
}

}  // namespace

const LayerKernels* portable_layers() {
  static constexpr ConvKernel kConv{"u8s2_conv_direct_4x16__portable",
                                    supports_all,
                                    nothing_prepared,
                                    nullptr,
                                    conv_scratch,
                                    conv};
  static constexpr ConvKernel kDepthwise{"u8s2_dwconv_direct_1x16__portable",
                                         supports_all,
                                         nothing_prepared,
                                         nullptr,
                                         depthwise_scratch,
                                         depthwise};
  static constexpr StemKernel kStem{"u8s16_stem_direct_1x16__portable",
                                    stem_supports,
                                    stem_prepared,
                                    stem_prepare,
                                    stem_scratch,
                                    stem};
  static constexpr const ConvKernel* kConvs[] = {&kConv, nullptr};
  static constexpr const ConvKernel* kDepthwises[] = {&kDepthwise, nullptr};
  static constexpr const StemKernel* kStems[] = {&kStem, nullptr};
  static constexpr LayerKernels kernels{"portable", kConvs,     kDepthwises, kStems,
                                        stream,     pool_codes, classify};
  return &kernels;
}

}  // namespace mbq
