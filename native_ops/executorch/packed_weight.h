// The header in front of every packed weight; the payload's order is in kernels.h.
//
// 64 bytes, little end first: magic "MBQ2BIT" and a zero byte, version, kind, outputs, inputs,
// kernel height, kernel width, payload bytes, CRC-32 of the payload (zlib's), 24 zero bytes.

#pragma once

#include <cstdint>
#include <cstring>

#include "../kernels/kernels.h"

namespace mbq {

inline constexpr size_t kPackedHeaderBytes = 64;
inline constexpr char kPackedMagic[8] = {'M', 'B', 'Q', '2', 'B', 'I', 'T', '\0'};
inline constexpr uint32_t kPackedVersion = 1;
// Kinds: a convolution over all inputs, or one whose channels have a filter each (inputs is then
// 1).
inline constexpr uint32_t kPackedDense = 0, kPackedDepthwise = 1;
// Keeps every product of sizes far from overflow.
inline constexpr uint32_t kMaxChannels = 1 << 16, kMaxKernel = 15;

// Reads outputs, inputs (of the image, so as many as outputs where depthwise) and kernel size into
// `shape`. Returns null, or what is wrong with a weight of this kind.
// The CRC is left to those who load files; this runs before every convolution.
inline const char* read_packed_header(const uint8_t* weight, size_t bytes, uint32_t needed,
                                      ConvShape& shape) {
  if (bytes < kPackedHeaderBytes) return "is shorter than its header";
  if (std::memcmp(weight, kPackedMagic, sizeof kPackedMagic) != 0) return "has a wrong magic";
  uint32_t field[8];
  std::memcpy(field, weight + sizeof kPackedMagic, sizeof field);
  const auto [version, kind, outputs, inputs, kernel_height, kernel_width, payload, crc] = field;
  if (version != kPackedVersion) return "has a version that this build does not read";
  if (kind != needed) return "is of another kind than the operator";
  if (outputs == 0 || outputs > kMaxChannels || inputs == 0 || inputs > kMaxChannels ||
      kernel_height == 0 || kernel_height > kMaxKernel || kernel_width == 0 ||
      kernel_width > kMaxKernel) {
    return "has a shape out of range";
  }
  const bool depthwise = kind == kPackedDepthwise;
  if (depthwise &&
      (inputs != 1 || kernel_height != kernel_width || kernel_height > kMaxDepthwiseKernel)) {
    return "has a shape out of range";
  }
  shape.outputs = static_cast<int>(outputs);
  shape.inputs = static_cast<int>(depthwise ? outputs : inputs);
  shape.kernel_height = static_cast<int>(kernel_height);
  shape.kernel_width = static_cast<int>(kernel_width);
  const size_t expected = depthwise ? depthwise_payload_bytes(shape) : packed_payload_bytes(shape);
  if (payload != expected || bytes != kPackedHeaderBytes + payload) {
    return "has a size that does not fit its shape";
  }
  return nullptr;
}

}  // namespace mbq
