// The padded image of the first convolution, shared by the NEON instruction sets. Padding is a
// pixel of its own value for each channel, and no border is around the pixels that come in.
//
// Anonymous for the same reason as finish_neon.h.

#pragma once

#include "finish_neon.h"

namespace mbq {
namespace {

// Elements that the last window may reach behind the image, where weights are 0.
inline constexpr int kStemSlack = 16;

template <typename Element>
struct StemWalk {
  const StemCall* call;
  Element* image;  // with the padding pixels around
  size_t row;      // elements
};

template <typename Element>
size_t padded_bytes(const ConvShape& shape) {
  const size_t pixels =
      static_cast<size_t>(shape.height + 2 * shape.pad) * (shape.width + 2 * shape.pad);
  return (pixels * shape.inputs + kStemSlack) * sizeof(Element);
}

template <typename Element>
Element* pad_pixels(const ConvShape& shape, const uint8_t* value, int pixels, Element* to) {
  for (int i = 0; i < pixels; ++i) {
    for (int c = 0; c < shape.inputs; ++c) *to++ = value[c];
  }
  return to;
}

template <typename Element>
void pad_rows(void* context, int, int begin, int end) {
  const StemWalk<Element>& walk = *static_cast<const StemWalk<Element>*>(context);
  const ConvShape& shape = walk.call->shape;
  const uint8_t* const value = walk.call->weights.pad_value;
  const size_t elements = static_cast<size_t>(shape.width) * shape.inputs;
  for (int row = begin; row < end; ++row) {
    Element* to = walk.image + row * walk.row;
    const int y = row - shape.pad;
    if (y < 0 || y >= shape.height) {
      pad_pixels(shape, value, shape.width + 2 * shape.pad, to);
      continue;
    }
    to = pad_pixels(shape, value, shape.pad, to);
    const uint8_t* const from = walk.call->image + y * elements;
    for (size_t i = 0; i < elements; ++i) to[i] = from[i];
    pad_pixels(shape, value, shape.pad, to + elements);
  }
}

// Fills the image in call.scratch.
template <typename Element>
StemWalk<Element> pad_image(const StemCall& call, const Parallel& parallel) {
  const ConvShape& shape = call.shape;
  const int rows = shape.height + 2 * shape.pad;
  const size_t row = static_cast<size_t>(shape.width + 2 * shape.pad) * shape.inputs;
  StemWalk<Element> walk{&call, static_cast<Element*>(call.scratch), row};
  for (int i = 0; i < kStemSlack; ++i) walk.image[rows * row + i] = 0;
  parallel.run(parallel.self, rows, pad_rows<Element>, &walk);
  return walk;
}

}  // namespace
}  // namespace mbq
