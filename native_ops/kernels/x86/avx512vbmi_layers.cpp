// The table of AVX-512 with VNNI and VBMI: the kernels of AVX-512 VNNI, with a faster transform of
// 2-bit weights for F(2x2).
//
// Three weights of a kernel's row are 6 bits, and a permutation of bytes looks up 64 of them at
// once in a table of 64: what the row becomes in the transform is a table. Only columns are added
// up.

#include "avx512vnni_layers.h"

#if defined(__AVX512VBMI__)

#include <immintrin.h>

#include "avx512vnni_f2x2_weights.h"

namespace mbq {
namespace {

constexpr int kRowTables = 4;

// What the weights a, b, c of a row become for tap j, with the signs and factors of rows 1 and 2 of
// U; see transform_weights().
constexpr int of_row(int j, int a, int b, int c) {
  return j == 0 ? 4 * a : j == 1 ? 2 * (a + b + c) : j == 2 ? 2 * (a - b + c) : -4 * c;
}

// Row 3 of U: times -1, and twice that at the ends, as row 0 is twice the others there.
constexpr int last_row(int j, int a, int b, int c) {
  return (j % 3 == 0 ? -2 : -1) * of_row(j, a, b, c);
}

struct Tables {
  alignas(64) int8_t row[kRowTables][64], last[kRowTables][64];
};

constexpr Tables make_tables() {
  Tables tables{};
  for (int codes = 0; codes < 64; ++codes) {
    const int a = 2 * (codes & 3) - 3, b = 2 * (codes >> 2 & 3) - 3, c = 2 * (codes >> 4) - 3;
    for (int j = 0; j < kRowTables; ++j) {
      tables.row[j][codes] = static_cast<int8_t>(of_row(j, a, b, c));
      tables.last[j][codes] = static_cast<int8_t>(last_row(j, a, b, c));
    }
  }
  return tables;
}
constexpr Tables kTables = make_tables();

// Positions in 64 bits, of which the low 16 are two bytes of packed codes, that bring each code to
// bits `to` and `to` + 1 of a byte of its own. What lands beside them does not matter.
constexpr uint64_t positions(int to) {
  uint64_t all = 0;
  for (int code = 0; code < 8; ++code) {
    all |= static_cast<uint64_t>((2 * code - to) & 63) << (8 * code);
  }
  return all;
}

template <int kTo>
[[gnu::always_inline]] inline __m512i spread(const uint8_t* packed) {
  const __m512i bytes =
      _mm512_cvtepu16_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)));
  return _mm512_multishift_epi64_epi8(_mm512_set1_epi64(positions(kTo)), bytes);
}

// By the bits of a mask, the first where they are set.
[[gnu::always_inline]] inline __m512i blend(__m512i mask, __m512i first, __m512i second) {
  return _mm512_ternarylogic_epi64(mask, first, second, 0xca);
}

// The codes of three taps, for 16 outputs x 4 channels, in the low 6 bits of each byte.
[[gnu::always_inline]] inline __m512i row_of(const uint8_t* packed, size_t tap_bytes) {
  const __m512i two =
      blend(_mm512_set1_epi8(0x03), spread<0>(packed), spread<2>(packed + tap_bytes));
  return blend(_mm512_set1_epi8(0x0f), two, spread<4>(packed + 2 * tap_bytes));
}

[[gnu::always_inline]] inline Bytes look_up(const int8_t (&table)[64], __m512i codes) {
  return reinterpret_cast<Bytes>(_mm512_permutexvar_epi8(codes, _mm512_load_si512(table)));
}

struct TableTransform {
  [[gnu::always_inline]] static void run(const uint8_t* packed, int inputs, int group,
                                         Bytes (&u)[16]) {
    if (4 * group + 4 >
        inputs) {  // channels that only fill have weight 0, which no code stands for
      WeightTransform::run(packed, inputs, group, u);
      return;
    }
    const size_t tap_bytes = static_cast<size_t>((inputs + 3) / 4) * kOutputBlock;
    packed += static_cast<size_t>(group) * kOutputBlock;
    const __m512i top = row_of(packed, tap_bytes);
    const __m512i middle = row_of(packed + 3 * tap_bytes, tap_bytes);
    const __m512i bottom = row_of(packed + 6 * tap_bytes, tap_bytes);
#pragma GCC unroll 4
    for (int j = 0; j < kRowTables; ++j) {
      const Bytes first = look_up(kTables.row[j], top), between = look_up(kTables.row[j], middle);
      const Bytes outer = first + look_up(kTables.row[j], bottom);
      u[j] = j % 3 == 0 ? first + first : first;
      u[4 + j] = outer + between;
      u[8 + j] = outer - between;
      u[12 + j] = look_up(kTables.last[j], bottom);
    }
  }
};

void make_u(const ConvShape& shape, const uint8_t* payload, int block, uint8_t* to) {
  make_u<TableTransform>(shape, payload_of(shape, payload, block), to);
}

bool supports(const ConvShape& shape, int highest) {
  return avx512vnni::kF2x2Unpacking.supports(shape, highest);
}
size_t prepared_bytes(const ConvShape& shape) {
  return avx512vnni::kF2x2Unpacking.prepared_bytes(shape);
}
void prepare(const ConvShape& shape, const uint8_t* payload, void* prepared) {
  avx512vnni::kF2x2Unpacking.prepare(shape, payload, prepared);
}
size_t scratch_bytes(const ConvShape& shape, int threads) {
  return avx512vnni::kF2x2Unpacking.scratch_bytes(shape, threads);
}
void run(const ConvCall& call, const Parallel& parallel) {
  avx512vnni::run_f2x2_unpacking(call, parallel, make_u);
}

constexpr ConvKernel kF2x2Unpacking{"u8s2_conv3x3s1_f2x2_unpacking_7x16__avx512vbmi",
                                    supports,
                                    prepared_bytes,
                                    prepare,
                                    scratch_bytes,
                                    run};

}  // namespace

const LayerKernels* avx512vbmi_layers() {
  using namespace avx512vnni;
  static constexpr const ConvKernel* kConv[] = {
      &kF4x3,    &kF4x3Unpacking,    &kF2x2,   &mbq::kF2x2Unpacking, &kF4x4,  &kF4x4Unpacking,
      &kStride2, &kStride2Unpacking, &kDirect, &kDirectUnpacking,    nullptr,
  };
  static const LayerKernels kernels = [] {
    LayerKernels table = *avx512vnni_layers();
    table.name = "avx512vbmi";
    table.conv = kConv;
    return table;
  }();
  return &kernels;
}

}  // namespace mbq

#else

namespace mbq {
const LayerKernels* avx512vbmi_layers() { return nullptr; }
}  // namespace mbq

#endif
