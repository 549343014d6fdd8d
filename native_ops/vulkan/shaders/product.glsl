// Products of codes 0..255 and weight codes 0..3, for four inputs and four outputs: a word of codes
// holds four channels of a pixel, a word of weights a byte for each output, with its inputs from the
// lowest bits on. Sums of code * weight code are turned into sums of code * (2 * weight code - 3) with
// the sum of the codes, once for all outputs.
//
// PACKED_PRODUCT: one instruction multiplies four bytes. Else a multiplication serves two outputs: the
// halves of a word add up sums of their own, which have to be taken apart before they overflow.

#if defined(PACKED_PRODUCT)

spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6018, 6019],
                  id = 4451) uint dot_of_bytes(uint a, uint b, spirv_literal uint format);

// Words whose sums one Sums holds.
const uint SUMMED_WORDS = 0x7fffffffu;

struct Weights4x4 { uint of_output[4]; };
struct Sums { uint of_output[4]; };
const Sums NO_SUMS = Sums(uint[4](0, 0, 0, 0));

Weights4x4 unpack(uint word) {
  Weights4x4 result;
  for (uint o = 0; o < 4; ++o) {
    // Two bits into each byte.
    uint spread = bitfieldExtract(word, 8 * int(o), 8);
    spread = (spread | spread << 12) & 0x000f000fu;
    result.of_output[o] = (spread | spread << 6) & 0x03030303u;
  }
  return result;
}

void add_products(inout Sums sums, uint codes_word, Weights4x4 weights_word) {
  for (uint o = 0; o < 4; ++o) {
    sums.of_output[o] += dot_of_bytes(codes_word, weights_word.of_output[o], 0u);
  }
}

uint sum_of_codes(uint word) { return dot_of_bytes(word, 0x01010101u, 0u); }

void take_apart(Sums sums, inout int acc[4]) {
  for (uint o = 0; o < 4; ++o) acc[o] += int(sums.of_output[o]);
}

#else

// 4 * 16 products of at most 3 * 255 fit 16 bits.
const uint SUMMED_WORDS = 16;

struct Weights4x4 { uint even[4], odd[4]; };  // for each input, of outputs 0 and 2, of 1 and 3
struct Sums { uint even, odd; };
const Sums NO_SUMS = Sums(0, 0);

Weights4x4 unpack(uint word) {
  Weights4x4 result;
  for (uint i = 0; i < 4; ++i) {
    result.even[i] = word >> (2 * i) & 0x00030003u;
    result.odd[i] = word >> (2 * i + 8) & 0x00030003u;
  }
  return result;
}

void add_products(inout Sums sums, uint codes_word, Weights4x4 weights_word) {
  for (uint i = 0; i < 4; ++i) {
    const uint code = bitfieldExtract(codes_word, 8 * int(i), 8);
    sums.even += code * weights_word.even[i];
    sums.odd += code * weights_word.odd[i];
  }
}

uint sum_of_codes(uint word) {
  const uint pairs = (word & 0x00ff00ffu) + (word >> 8 & 0x00ff00ffu);
  return (pairs & 0xffffu) + (pairs >> 16);
}

void take_apart(Sums sums, inout int acc[4]) {
  acc[0] += int(sums.even & 0xffffu);
  acc[1] += int(sums.odd & 0xffffu);
  acc[2] += int(sums.even >> 16);
  acc[3] += int(sums.odd >> 16);
}

#endif
