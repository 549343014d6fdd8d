// U of F(2x2,3x3) from packed weights, fast enough to be made anew in every run: 2-bit weights are
// read from memory, a ninth of the bytes of U.
//
// Per side, 2G has the rows (2,0,0), (1,1,1), (1,-1,1), (0,0,2). Vectors hold 16 outputs x 4
// channels, and every step below is the same for all of them; sums over channels, from which the
// start values follow, take the same steps in int32, since all of it is linear.

#include "avx512vnni_f2x2_tiles.h"
#include "avx512vnni_unpack.h"

namespace mbq {
namespace {

using Bytes = int8_t __attribute__((vector_size(64)));
using Ints = int32_t __attribute__((vector_size(64)));

// U from the taps of w, with the signs and factors that avx512vnni_f2x2_tiles.h asks for: negative
// where exactly one of i, j is 3; times 2 except for i in {0, 3} with j in {1, 2}.
template <typename V>
[[gnu::always_inline]] inline void transform_weights(const V (&w)[9], V (&u)[16]) {
  V rows[4][3];
  for (int x = 0; x < 3; ++x) {
    const V top = w[x], outer = w[x] + w[6 + x], middle = w[3 + x];
    const V plus = outer + middle, minus = outer - middle;
    rows[0][x] = top + top;
    rows[1][x] = plus + plus;
    rows[2][x] = minus + minus;
    rows[3][x] = w[6 + x] + w[6 + x];
  }
  for (int i = 0; i < 4; ++i) {
    const V first = rows[i][0] + rows[i][0], last = rows[i][2] + rows[i][2];
    const V outer = rows[i][0] + rows[i][2];
    const V plus = outer + rows[i][1], minus = outer - rows[i][1];
    const V four_first = first + first, four_last = last + last;
    u[4 * i] = i == 0 ? four_first : i == 3 ? -four_first : first;
    u[4 * i + 1] = i == 3 ? -plus : plus;
    u[4 * i + 2] = i == 3 ? -minus : minus;
    u[4 * i + 3] = i == 0 ? -four_last : i == 3 ? four_last : -last;
  }
}

// Two columns of 16 outputs, side by side in two halves of the outputs; see output_of().
[[gnu::always_inline]] inline void store_columns(__m512i a, __m512i b, uint8_t* to) {
  _mm512_store_si512(to, _mm512_unpacklo_epi32(a, b));
  _mm512_store_si512(to + 64, _mm512_unpackhi_epi32(a, b));
}

// What the offset of V adds to the accumulators ends as 128 times the sum of U over the taps that
// an output gets; start values of step 0, at columns 1 and 2 of both rows of outputs, take it away.
// sums: of U over channels, by 4 i + j.
inline void store_start_values(const Ints (&sums)[16], uint8_t* to) {
  for (int y = 0; y < 2; ++y) {
    Ints out[2] = {};
    for (int x = 0; x < 2; ++x) {
      for (int tap = 0; tap < 16; ++tap) {
        const int i = tap / 4, j = tap % 4;
        if (i == (y == 0 ? 3 : 0) || j == (x == 0 ? 3 : 0)) continue;
        if (i == 1 && j == 1) continue;  // has no offset
        const bool first_step = i % 3 == 0 && j % 3 != 0;
        const Ints added = (first_step ? 256 : 128) * sums[tap];
        // Rows and columns 2 enter the second output negatively; 3 do so by the sign in U.
        out[x] += (y == 1 && i == 2) != (x == 1 && j == 2) ? -added : added;
      }
    }
    // The butterfly of columns, and two of rows, make of them twice their sum and difference.
    // Everything is a multiple of 128, so that shifts divide exactly.
    store_columns(reinterpret_cast<__m512i>(-(out[0] + out[1]) >> 2),
                  reinterpret_cast<__m512i>(-(out[0] - out[1]) >> 2), to + 128 * y);
  }
}

// The weights of 4 channels from `group` on of tap `tap`; 0 for channels that only fill.
[[gnu::always_inline]] inline Bytes weights_of(const uint8_t* packed, int inputs, int group,
                                               int tap) {
  const int groups = (inputs + 3) / 4, left = inputs - 4 * group;
  const __m512i weights =
      unpack_weights(packed + (static_cast<size_t>(tap) * groups + group) * kOutputBlock);
  if (left >= 4) [[likely]]
    return reinterpret_cast<Bytes>(weights);
  const __mmask64 present = 0x1111111111111111u * ((1u << left) - 1);
  return reinterpret_cast<Bytes>(_mm512_maskz_mov_epi8(present, weights));
}

// Start values of a block of 16 outputs: [row][half][output][column].
inline void make_start_values(const uint8_t* packed, int inputs, uint8_t* to) {
  Ints sums[9] = {}, of_u[16];
  for (int tap = 0; tap < 9; ++tap) {
    for (int group = 0; 4 * group < inputs; ++group) {
      const Bytes w = weights_of(packed, inputs, group, tap);
      sums[tap] = reinterpret_cast<Ints>(_mm512_dpbusd_epi32(
          reinterpret_cast<__m512i>(sums[tap]), _mm512_set1_epi8(1), reinterpret_cast<__m512i>(w)));
    }
  }
  transform_weights(sums, of_u);
  store_start_values(of_u, to);
}

// The payload of a block of outputs.
inline const uint8_t* payload_of(const ConvShape& shape, const uint8_t* payload, int block) {
  return payload + block * packed_block_bytes(shape);
}

// Step of U in which a channel is multiplied: the order of the streams.
inline int step_of(int channel, int lanes) {
  const int chunk = channel / 64, lane = channel % 64 / 16, group = channel % 16 / 4;
  const int chunk_lanes = lanes - 4 * chunk < 4 ? lanes - 4 * chunk : 4;
  return 16 * chunk + (group / 2 * chunk_lanes + lane) * 2 + group % 2;
}

// U of 4 channels from arithmetic.
struct WeightTransform {
  [[gnu::always_inline]] static void run(const uint8_t* packed, int inputs, int group,
                                         Bytes (&u)[16]) {
    Bytes w[9] = {};
    if (4 * group < inputs) {
      for (int tap = 0; tap < 9; ++tap) w[tap] = weights_of(packed, inputs, group, tap);
    }
    transform_weights(w, u);
  }
};

// U of a block of 16 outputs: [step of taps][step of channels][pair of taps][half][output][tap]
// [4 channels]. packed: the block's payload.
template <typename Transform>
void make_u(const ConvShape& shape, const uint8_t* packed, uint8_t* to) {
  const int lanes = round_up(shape.inputs, 16) / 16;
  for (int group = 0; group < 4 * lanes; ++group) {
    uint8_t* const step = to + static_cast<size_t>(step_of(4 * group, lanes)) * kStepBytes;
    Bytes u[16];
    Transform::run(packed, shape.inputs, group, u);
    for (int s = 0; s < 4; ++s) {
      for (int pair = 0; pair < 2; ++pair) {
        const auto& taps = kTapOrder[s][pair];
        store_columns(reinterpret_cast<__m512i>(u[taps[0]]), reinterpret_cast<__m512i>(u[taps[1]]),
                      step + static_cast<size_t>(s) * 4 * lanes * kStepBytes + 128 * pair);
      }
    }
  }
}

}  // namespace
}  // namespace mbq
