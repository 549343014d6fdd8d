// Products of unsigned bytes with small unsigned weights, for four inputs and four outputs: a word of
// bytes holds four channels of a pixel.
//
// PACKED_PRODUCT: one instruction multiplies four bytes. Else a multiplication serves two outputs: the
// halves of a word add up sums of their own, which have to be taken apart before they overflow.

#if defined(PACKED_PRODUCT)

spirv_instruction(extensions = ["SPV_KHR_integer_dot_product"], capabilities = [6018, 6019],
                  id = 4451) uint dot_of_bytes(uint a, uint b, spirv_literal uint format);

struct Weights4x4 { uint of_output[4]; };
struct Sums { uint of_output[4]; };
const Sums NO_SUMS = Sums(uint[4](0, 0, 0, 0));

// Words whose sums one Sums holds; most: of the products of one input.
#define words_that_fit(most) 0x7fffffffu

// A byte of the word for each output, with its inputs from the lowest two bits on.
Weights4x4 weights_of_codes(uint word) {
  Weights4x4 result;
  for (uint o = 0; o < 4; ++o) {
    // Two bits into each byte.
    uint spread = bitfieldExtract(word, 8 * int(o), 8);
    spread = (spread | spread << 12) & 0x000f000fu;
    result.of_output[o] = (spread | spread << 6) & 0x03030303u;
  }
  return result;
}

// A word for each output, a byte for each input.
Weights4x4 weights_of_bytes(uvec4 words) {
  return Weights4x4(uint[4](words.x, words.y, words.z, words.w));
}

void add_products(inout Sums sums, uint bytes, Weights4x4 weights_word) {
  for (uint o = 0; o < 4; ++o) {
    sums.of_output[o] += dot_of_bytes(bytes, weights_word.of_output[o], 0u);
  }
}

uint sum_of_bytes(uint word) { return dot_of_bytes(word, 0x01010101u, 0u); }

void take_apart(Sums sums, inout int acc[4]) {
  for (uint o = 0; o < 4; ++o) acc[o] += int(sums.of_output[o]);
}

#else

struct Weights4x4 { uint even[4], odd[4]; };  // for each input, of outputs 0 and 2, of 1 and 3
struct Sums { uint even, odd; };
const Sums NO_SUMS = Sums(0, 0);

// Words whose sums one Sums holds in its 16 bits; most: of the products of one input.
#define words_that_fit(most) (0xffffu / (4 * (most)))

// A byte of the word for each output, with its inputs from the lowest two bits on.
Weights4x4 weights_of_codes(uint word) {
  Weights4x4 result;
  for (uint i = 0; i < 4; ++i) {
    result.even[i] = word >> (2 * i) & 0x00030003u;
    result.odd[i] = word >> (2 * i + 8) & 0x00030003u;
  }
  return result;
}

// A word for each input, a byte for each output.
Weights4x4 weights_of_bytes(uvec4 words) {
  Weights4x4 result;
  for (uint i = 0; i < 4; ++i) {
    result.even[i] = words[i] & 0x00ff00ffu;
    result.odd[i] = words[i] >> 8 & 0x00ff00ffu;
  }
  return result;
}

void add_products(inout Sums sums, uint bytes, Weights4x4 weights_word) {
  for (uint i = 0; i < 4; ++i) {
    const uint value = bitfieldExtract(bytes, 8 * int(i), 8);
    sums.even += value * weights_word.even[i];
    sums.odd += value * weights_word.odd[i];
  }
}

uint sum_of_bytes(uint word) {
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
