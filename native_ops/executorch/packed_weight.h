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
inline constexpr uint32_t kPackedDense = 0;  // kind: a convolution over all inputs
// Keeps every product of sizes far from overflow.
inline constexpr uint32_t kMaxChannels = 1 << 16, kMaxKernel = 15;

// Reads outputs, inputs and kernel size into `shape`. Returns null, or what is wrong.
// The CRC is left to those who load files; this runs before every convolution.
inline const char* read_packed_header(const uint8_t* weight, size_t bytes, ConvShape& shape) {
  if (bytes < kPackedHeaderBytes) return "is shorter than its header";
  if (std::memcmp(weight, kPackedMagic, sizeof kPackedMagic) != 0) return "has a wrong magic";
  uint32_t field[8];
  std::memcpy(field, weight + sizeof kPackedMagic, sizeof field);
  const auto [version, kind, outputs, inputs, kernel_height, kernel_width, payload, crc] = field;
  if (version != kPackedVersion) return "has a version that this build does not read";
  if (kind != kPackedDense) return "is of a kind that this build does not run";
  if (outputs == 0 || outputs > kMaxChannels || inputs == 0 || inputs > kMaxChannels ||
      kernel_height == 0 || kernel_height > kMaxKernel || kernel_width == 0 ||
      kernel_width > kMaxKernel) {
    return "has a shape out of range";
  }
  shape.outputs = static_cast<int>(outputs);
  shape.inputs = static_cast<int>(inputs);
  shape.kernel_height = static_cast<int>(kernel_height);
  shape.kernel_width = static_cast<int>(kernel_width);
  if (payload != packed_payload_bytes(shape) || bytes != kPackedHeaderBytes + payload) {
    return "has a size that does not fit its shape";
  }
  return nullptr;
}

}  // namespace mbq
