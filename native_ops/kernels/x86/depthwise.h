// Depthwise convolution, shared by the x86 instruction sets: lanes are channels.
//
// The input is copied once into a padded image, and weights are widened once to int16. A step
// multiplies one tap of a few pixels by the tap's weights; sums of at most kMaxDepthwiseKernel^2
// products fit int16.
//
// Anonymous for the same reason as tiled_conv.h, which comes first.

namespace mbq {
namespace {

struct DepthwiseWalk {
  ConvShape shape;
  const uint8_t* image;    // padded; one vector past its end may be read
  const int16_t* weights;  // [channels in blocks of Isa::kLanes][taps][Isa::kLanes]
  const ConvOutput* output;
};

// `P` neighbouring pixels of an output row, one vector of channels.
template <typename Isa, int P>
[[gnu::always_inline]] inline void depthwise_pixels(const DepthwiseWalk& walk,
                                                    const uint8_t* window, const int16_t* weights,
                                                    const TileOutput& output) {
  const ConvShape& shape = walk.shape;
  const size_t row_step = static_cast<size_t>(shape.width + 2 * shape.pad) * shape.inputs;
  const size_t pixel_step = static_cast<size_t>(shape.stride) * shape.inputs;
  typename Isa::Words sums[P];
  for (int p = 0; p < P; ++p) sums[p] = Isa::no_words();
  for (int ky = 0; ky < shape.kernel_height; ++ky, window += row_step) {
    const uint8_t* from = window;
    for (int kx = 0; kx < shape.kernel_width; ++kx, from += shape.inputs, weights += Isa::kLanes) {
      const auto weight = Isa::load_words(weights);
      for (int p = 0; p < P; ++p) {
        sums[p] = Isa::multiply_add(sums[p], Isa::widen_codes(from + p * pixel_step), weight);
      }
    }
  }
  Isa::template finish_words<P>(sums, output);
}

template <typename Isa>
void depthwise_rows(void* context, int, int begin, int end) {
  constexpr int kPixels = 4;
  const DepthwiseWalk& walk = *static_cast<const DepthwiseWalk*>(context);
  const ConvShape& shape = walk.shape;
  const int out_width = shape.out_width();
  const size_t row_step = static_cast<size_t>(shape.width + 2 * shape.pad) * shape.inputs;
  const size_t pixel_step = static_cast<size_t>(shape.stride) * shape.inputs;
  const size_t block_weights =
      static_cast<size_t>(shape.kernel_height) * shape.kernel_width * Isa::kLanes;
  for (int oy = begin; oy < end; ++oy) {
    const int16_t* weights = walk.weights;
    for (int first = 0; first < shape.outputs; first += Isa::kLanes, weights += block_weights) {
      const uint8_t* window = walk.image + oy * shape.stride * row_step + first;
      TileOutput output{walk.output, static_cast<size_t>(oy) * out_width * shape.outputs + first,
                        shape.outputs, first};
      int ox = 0;
      for (; ox + kPixels <= out_width; ox += kPixels) {
        depthwise_pixels<Isa, kPixels>(walk, window, weights, output);
        window += kPixels * pixel_step;
        output.position += static_cast<size_t>(kPixels) * shape.outputs;
      }
      for (; ox < out_width; ++ox) {
        depthwise_pixels<Isa, 1>(walk, window, weights, output);
        window += pixel_step;
        output.position += shape.outputs;
      }
    }
  }
}

template <typename Isa>
void depthwise(const ConvShape& shape, const ConvInput& input, const uint8_t* payload,
               const ConvOutput& output, void* scratch, const Parallel& parallel) {
  static_assert(kDepthwiseBlock % Isa::kLanes == 0 && Isa::kLanes % kOutputBlock == 0);
  const int taps = shape.kernel_height * shape.kernel_width;
  const int groups = round_up(taps, kCodesPerByte) / kCodesPerByte;
  int16_t* const weights = static_cast<int16_t*>(scratch);
  for (int c = 0; c < shape.outputs; c += kOutputBlock) {
    int16_t* const block =
        weights + static_cast<size_t>(c / Isa::kLanes) * taps * Isa::kLanes + c % Isa::kLanes;
    for (int group = 0; group < groups; ++group, payload += kOutputBlock) {
      const int first = group * kCodesPerByte, left = taps - first;
      Isa::widen_taps(payload, left < kCodesPerByte ? left : kCodesPerByte,
                      block + first * Isa::kLanes);
    }
  }
  const int channels = round_up(shape.outputs, kDepthwiseBlock);
  uint8_t* const image =
      aligned(reinterpret_cast<uint8_t*>(weights + static_cast<size_t>(taps) * channels));
  pad_codes<Isa>(shape, shape.inputs, input, image);
  DepthwiseWalk walk{shape, image, weights, &output};
  parallel.run(parallel.self, shape.out_height(), depthwise_rows<Isa>, &walk);
}

}  // namespace
}  // namespace mbq
