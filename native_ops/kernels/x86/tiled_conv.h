// Direct convolution by tiles of pixels x output channels, shared by the x86 instruction sets.
//
// Both convolutions become the same loop. The input is copied once into a padded image, and weights
// are widened once into vectors that hold, for 16 outputs, one 32-bit group of inputs each: four
// int8 weights for 2-bit layers, two int16 weights for the stem. Every step of a tile broadcasts
// the 32-bit group of one pixel against such a vector and accumulates 16 int32. Within a kernel row
// the groups of a pixel are contiguous in the padded image, so addresses only step by 4.
//
// Everything is in an anonymous namespace and avoids inline functions of the standard library: this
// header is compiled with a different target in each translation unit, and a linker that merged the
// copies could keep one that another CPU cannot run.

#include <string.h>

#include "../kernels.h"

namespace mbq {
namespace {

inline constexpr int kVectorBytes = 64;  // 16 outputs x 32 bits

// One tile's inputs. Pixel p, kernel row r, group g is at pixels + p*pixel_step + r*row_step + 4*g.
struct TileInput {
  const uint8_t* pixels;
  size_t pixel_step, row_step;
  int rows, groups;
  const uint8_t* weights;  // rows * groups vectors for each block of outputs
};

// Where a tile's results go: pixel p, output o of the tile is at position + p * outputs + o.
struct TileOutput {
  const ConvOutput* output;
  size_t position;
  int outputs;       // channels of the whole output
  int first_output;  // of this tile
};

using Tile = void (*)(const TileInput&, const TileOutput&);

struct Walk {
  ConvShape shape;
  TileInput input;  // `pixels` is the padded image, `weights` those of all blocks
  const ConvOutput* output;
  const Tile (*tiles)[8];  // [blocks - 1][pixels - 1]
  int max_pixels[2];       // for one block and for two
};

void walk_rows(void* context, int, int begin, int end) {
  const Walk& walk = *static_cast<const Walk*>(context);
  const ConvShape& shape = walk.shape;
  const size_t vectors = static_cast<size_t>(walk.input.rows) * walk.input.groups;
  const int blocks = round_up(shape.outputs, kOutputBlock) / kOutputBlock;
  const int out_width = shape.out_width();
  // Outputs outside, rows inside: the weights of a tile stay in the L1 cache.
  for (int block = 0; block < blocks;) {
    const int together = walk.max_pixels[1] > 0 && blocks - block >= 2 ? 2 : 1;
    TileInput input = walk.input;
    input.weights += block * vectors * kVectorBytes;
    TileOutput output{walk.output, 0, shape.outputs, block * kOutputBlock};
    for (int oy = begin; oy < end; ++oy) {
      const uint8_t* const row = walk.input.pixels + oy * shape.stride * walk.input.row_step;
      for (int ox = 0; ox < out_width;) {
        const int left = out_width - ox, most = walk.max_pixels[together - 1];
        const int pixels = left < most ? left : most;
        input.pixels = row + ox * input.pixel_step;
        output.position =
            (static_cast<size_t>(oy) * out_width + ox) * shape.outputs + output.first_output;
        walk.tiles[together - 1][pixels - 1](input, output);
        ox += pixels;
      }
    }
    block += together;
  }
}

uint8_t* aligned(uint8_t* pointer) {
  return reinterpret_cast<uint8_t*>((reinterpret_cast<uintptr_t>(pointer) + kVectorBytes - 1) /
                                    kVectorBytes * kVectorBytes);
}

// Copies or quantises `count` elements of the input to codes.
template <typename Isa>
void take_codes(const ConvInput& input, size_t position, size_t count, uint8_t* to) {
  if (input.codes != nullptr) {
    memcpy(to, input.codes + position, count);
  } else {
    Isa::quantize(input, position, count, to);
  }
}

// Brings codes into [height + 2 pad, width + 2 pad, channels] with zeros around and in those
// channels that the input does not have.
template <typename Isa>
void pad_codes(const ConvShape& shape, int channels, const ConvInput& input, uint8_t* padded) {
  const size_t row = static_cast<size_t>(shape.width + 2 * shape.pad) * channels;
  const size_t margin = static_cast<size_t>(shape.pad) * channels;
  memset(padded, 0, shape.pad * row);
  uint8_t* to = padded + shape.pad * row;
  for (int y = 0; y < shape.height; ++y, to += row) {
    const size_t from = static_cast<size_t>(y) * shape.width * shape.inputs;
    memset(to, 0, margin);
    if (channels == shape.inputs) {
      take_codes<Isa>(input, from, static_cast<size_t>(shape.width) * channels, to + margin);
    } else {
      for (int x = 0; x < shape.width; ++x) {
        uint8_t* const pixel = to + margin + static_cast<size_t>(x) * channels;
        take_codes<Isa>(input, from + static_cast<size_t>(x) * shape.inputs, shape.inputs, pixel);
        for (int c = shape.inputs; c < channels; ++c) pixel[c] = 0;
      }
    }
    memset(to + row - margin, 0, margin);
  }
  memset(to, 0, shape.pad * row);
}

template <typename Isa>
void conv(const ConvShape& shape, const ConvInput& input, const uint8_t* payload,
          const ConvOutput& output, void* scratch, const Parallel& parallel) {
  const int channels = round_up(shape.inputs, kCodesPerByte);
  uint8_t* const weights = static_cast<uint8_t*>(scratch);
  const size_t packed = packed_payload_bytes(shape);
  for (size_t i = 0; i < packed; i += kOutputBlock) Isa::widen(payload + i, weights + 4 * i);
  const uint8_t* image = input.codes;
  if (image == nullptr || shape.pad > 0 || channels != shape.inputs) {
    uint8_t* const padded = aligned(weights + 4 * packed);
    pad_codes<Isa>(shape, channels, input, padded);
    image = padded;
  }
  Walk walk{shape,
            {image, static_cast<size_t>(shape.stride) * channels,
             static_cast<size_t>(shape.width + 2 * shape.pad) * channels, shape.kernel_height,
             shape.kernel_width * channels / 4, weights},
            &output,
            Isa::kCodeTiles,
            {Isa::kMaxPixels[0], Isa::kMaxPixels[1]}};
  parallel.run(parallel.self, shape.out_height(), walk_rows, &walk);
}

template <typename Isa>
void stem(const ConvShape& shape, const uint8_t* image, const StemWeights& from,
          const ConvOutput& output, void* scratch, const Parallel& parallel) {
  const int row_inputs = shape.kernel_width * shape.inputs;
  const int row_pairs = round_up(row_inputs, 2) / 2;
  const int blocks = round_up(shape.outputs, kOutputBlock) / kOutputBlock;

  // [block][kernel row][pair][16 outputs][2]; rows of odd length and missing outputs get weight 0.
  int16_t* const weights = static_cast<int16_t*>(scratch);
  int16_t* to = weights;
  for (int block = 0; block < blocks; ++block) {
    for (int ky = 0; ky < shape.kernel_height; ++ky) {
      for (int pair = 0; pair < row_pairs; ++pair) {
        for (int lane = 0; lane < kOutputBlock; ++lane) {
          const int o = block * kOutputBlock + lane;
          for (int k = 2 * pair; k < 2 * pair + 2; ++k) {
            const bool present = o < shape.outputs && k < row_inputs;
            const size_t row = static_cast<size_t>(o) * shape.kernel_height + ky;
            *to++ = present ? from.weight[row * row_inputs + k] : int16_t{0};
          }
        }
      }
    }
  }

  // Pixels as int16, with the padding value around. A pair at the end of a window may reach one
  // element further, where its weight is 0.
  const int width = shape.width + 2 * shape.pad;
  int16_t* const padded = reinterpret_cast<int16_t*>(aligned(reinterpret_cast<uint8_t*>(to)));
  int16_t* pixel = padded;
  const auto pad_pixels = [&](int count) {
    for (int i = 0; i < count; ++i) {
      for (int c = 0; c < shape.inputs; ++c) *pixel++ = from.pad_value[c];
    }
  };
  const int row_elements = shape.width * shape.inputs;
  pad_pixels(shape.pad * width);
  for (int y = 0; y < shape.height; ++y) {
    const uint8_t* const source = image + static_cast<size_t>(y) * row_elements;
    pad_pixels(shape.pad);
    for (int i = 0; i < row_elements; ++i) pixel[i] = source[i];
    pixel += row_elements;
    pad_pixels(shape.pad);
  }
  pad_pixels(shape.pad * width);
  *pixel = 0;

  Walk walk{shape,
            {reinterpret_cast<const uint8_t*>(padded),
             static_cast<size_t>(shape.stride) * shape.inputs * 2,
             static_cast<size_t>(width) * shape.inputs * 2, shape.kernel_height, row_pairs,
             reinterpret_cast<const uint8_t*>(weights)},
            &output,
            Isa::kPixelTiles,
            {Isa::kMaxPixels[0], Isa::kMaxPixels[1]}};
  parallel.run(parallel.self, shape.out_height(), walk_rows, &walk);
}

}  // namespace
}  // namespace mbq
