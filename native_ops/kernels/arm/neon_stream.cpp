// Codes of a stream, pools and the head for ARMv8.0.

#if defined(__aarch64__)

#include "../pool_window.h"
#include "finish_neon.h"
#include "neon_shared.h"

namespace mbq {
namespace {

// Sixteen channels of a pixel of the stream; `channels` of them exist, the rest are 0.
struct Sixteen {
  float32x4_t part[4];

  [[gnu::always_inline]] void load(const float* from, int channels) {
    float own[16];
    if (channels < 16) {
      for (int i = 0; i < 16; ++i) own[i] = i < channels ? from[i] : 0.0f;
      from = own;
    }
    for (int i = 0; i < 4; ++i) part[i] = vld1q_f32(from + 4 * i);
  }

  // As from > this ? from : this.
  [[gnu::always_inline]] void maximum(const Sixteen& from) {
    for (int i = 0; i < 4; ++i) {
      part[i] = vbslq_f32(vcgtq_f32(from.part[i], part[i]), from.part[i], part[i]);
    }
  }

  [[gnu::always_inline]] void store(float* to, int channels) const {
    float own[16];
    float* const all = channels < 16 ? own : to;
    for (int i = 0; i < 4; ++i) vst1q_f32(all + 4 * i, part[i]);
    if (channels < 16) memcpy(to, own, channels * sizeof(float));
  }

  [[gnu::always_inline]] void store_codes(const CodeOutput& codes, uint8_t* to,
                                          int channels) const {
    float32x4_t scaled[4];
    for (int i = 0; i < 4; ++i) {
      scaled[i] =
          vaddq_f32(vmulq_f32(part[i], vdupq_n_f32(codes.scale)), vdupq_n_f32(codes.offset));
    }
    const uint8x16_t packed = pack_codes(scaled, vdupq_n_f32(static_cast<float>(codes.lowest)),
                                         vdupq_n_f32(static_cast<float>(codes.highest)));
    if (channels >= 16) {
      vst1q_u8(to, packed);
    } else {
      uint8_t own[16];
      vst1q_u8(own, packed);
      memcpy(to, own, channels);
    }
  }
};

struct StreamWalk {
  const StreamCall* call;
  int width;  // of the output
};

void stream_rows(void* context, int, int begin, int end) {
  const StreamWalk& walk = *static_cast<const StreamWalk*>(context);
  const StreamCall& call = *walk.call;
  const PoolShape& pool = call.pool;
  const bool pooled = pool.kernel > 0;
  for (int y = begin; y < end; ++y) {
    const Inside rows = pooled ? Inside(y, pool.kernel, pool.stride, pool.pad, call.height)
                               : Inside(y, 1, 1, 0, call.height);
    for (int x = 0; x < walk.width; ++x) {
      const Inside columns = pooled ? Inside(x, pool.kernel, pool.stride, pool.pad, call.width)
                                    : Inside(x, 1, 1, 0, call.width);
      for (int c = 0; c < call.kept; c += 16) {
        const int present = call.channels - c > 0 ? call.channels - c : 0;
        Sixteen value, other;
        const auto pixel = [&](int row, int column) {
          const size_t position = static_cast<size_t>(row) * call.width + column;
          return call.input + position * call.channels + (present > 0 ? c : 0);
        };
        value.load(pixel(rows.begin, columns.begin), present);
        for (int row = rows.begin; row < rows.end; ++row) {
          for (int column = columns.begin; column < columns.end; ++column) {
            other.load(pixel(row, column), present);
            value.maximum(other);
          }
        }
        const int kept = call.kept - c;
        if (call.stream != nullptr) {
          const size_t position = static_cast<size_t>(y) * walk.width + x;
          value.store(call.stream + position * call.kept + c, kept);
        }
        for (int i = 0; i < call.code_outputs; ++i) {
          const CodeImage& image = call.codes[i].image;
          value.store_codes(call.codes[i], image.origin + y * image.row + x * image.pixel + c,
                            kept);
        }
      }
    }
  }
}

struct PoolWalk {
  PoolShape shape;
  CodeImage input, output;
};

void pool_rows(void* context, int, int begin, int end) {
  const PoolWalk& walk = *static_cast<const PoolWalk*>(context);
  const PoolShape& shape = walk.shape;
  for (int y = begin; y < end; ++y) {
    const Inside rows(y, shape.kernel, shape.stride, shape.pad, shape.height);
    for (int x = 0; x < shape.out_width(); ++x) {
      const Inside columns(x, shape.kernel, shape.stride, shape.pad, shape.width);
      for (int c = 0; c < shape.channels; c += 16) {
        // Codes are not negative. What lies behind the last channel is read and not stored.
        uint8x16_t most = vdupq_n_u8(0);
        for (int row = rows.begin; row < rows.end; ++row) {
          for (int column = columns.begin; column < columns.end; ++column) {
            most = vmaxq_u8(most, vld1q_u8(walk.input.origin + row * walk.input.row +
                                           column * walk.input.pixel + c));
          }
        }
        uint8_t* const to = walk.output.origin + y * walk.output.row + x * walk.output.pixel + c;
        if (shape.channels - c >= 16) {
          vst1q_u8(to, most);
        } else {
          uint8_t own[16];
          vst1q_u8(own, most);
          memcpy(to, own, shape.channels - c);
        }
      }
    }
  }
}

}  // namespace

void neon_stream(const StreamCall& call, const Parallel& parallel) {
  const bool pooled = call.pool.kernel > 0;
  StreamWalk walk{&call, pooled ? call.pool.out_width() : call.width};
  parallel.run(parallel.self, pooled ? call.pool.out_height() : call.height, stream_rows, &walk);
}

void neon_pool_codes(const PoolShape& shape, const CodeImage& input, const CodeImage& output,
                     const Parallel& parallel) {
  PoolWalk walk{shape, input, output};
  parallel.run(parallel.self, shape.out_height(), pool_rows, &walk);
}

// Lanes are channels, in the pool and in the 16 partial sums of each class; lanes of the classifier
// that do not exist hold 0, whose products leave a sum as it is.
void neon_head(const HeadCall& call, const Parallel&) {
  const float by_pixels = 1.0f / static_cast<float>(call.pixels);
  const float by_streams = 1.0f / static_cast<float>(call.count);
  for (int c = 0; c < call.channels; c += 16) {
    const int present = call.channels - c;
    Sixteen all{};
    for (float32x4_t& part : all.part) part = vdupq_n_f32(0.0f);
    for (int s = 0; s < call.count; ++s) {
      Sixteen total = all, pixel;
      for (float32x4_t& part : total.part) part = vdupq_n_f32(0.0f);
      const float* from = call.streams[s] + c;
      for (int p = 0; p < call.pixels; ++p, from += call.channels) {
        pixel.load(from, present);
        for (int i = 0; i < 4; ++i) total.part[i] = vaddq_f32(total.part[i], pixel.part[i]);
      }
      for (int i = 0; i < 4; ++i) {
        all.part[i] = vaddq_f32(all.part[i], vmulq_n_f32(total.part[i], by_pixels));
      }
    }
    if (call.mean) {
      for (float32x4_t& part : all.part) part = vmulq_n_f32(part, by_streams);
    }
    all.store(call.pooled + c, present);
  }
  for (int n = 0; n < call.classes; ++n) {
    Sixteen sums, pooled, weight;
    for (float32x4_t& part : sums.part) part = vdupq_n_f32(0.0f);
    const float* const row = call.weight + static_cast<size_t>(n) * call.channels;
    for (int c = 0; c < call.channels; c += 16) {
      pooled.load(call.pooled + c, call.channels - c);
      weight.load(row + c, call.channels - c);
      for (int i = 0; i < 4; ++i) {
        sums.part[i] = vaddq_f32(sums.part[i], vmulq_f32(pooled.part[i], weight.part[i]));
      }
    }
    float partial[16], sum = 0.0f;
    sums.store(partial, 16);
    for (const float value : partial) sum += value;
    call.logits[n] = sum + call.bias[n];
  }
}

}  // namespace mbq

#endif
