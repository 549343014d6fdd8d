// Packed 2-bit weights as bytes, for every AVX-512 kernel that multiplies or transforms them, and
// how they come into the cache in time.
//
// Anonymous, as finish_avx512.h is. Include after <immintrin.h>.

#pragma once

#include <stdint.h>

namespace mbq {
namespace {

// 16 bytes of packed codes, one for each output, as 64 weights. Shifts by 12 and by 6 bring the
// codes of a byte to bits 0, 8, 16 and 24; what else lands around them is masked off.
[[gnu::always_inline]] inline __m512i unpack_weights(const uint8_t* packed) {
  const __m512i byte =
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(packed)));
  const __m512i pairs = _mm512_or_si512(byte, _mm512_slli_epi32(byte, 12));
  const __m512i codes =
      _mm512_and_si512(_mm512_or_si512(pairs, _mm512_slli_epi32(pairs, 6)), _mm512_set1_epi8(0x03));
  return _mm512_shuffle_epi8(_mm512_set1_epi32(0x0301fffd), codes);  // -3, -1, 1, 3
}

// Fetches the packed weights of the next outputs, a few lines at a time, while the products of
// these are summed. They are read once in a frame, in one go, so that otherwise each block of
// outputs waits for memory.
class Ahead {
 public:
  Ahead() = default;
  // Spread over so many calls of fetch().
  Ahead(const uint8_t* from, size_t bytes, int calls)
      : next_(from), end_(from + bytes), lines_(static_cast<int>(bytes / kLine) / calls + 1) {}

  [[gnu::always_inline]] void fetch() {
    for (int i = 0; i < lines_ && next_ < end_; ++i, next_ += kLine) {
      _mm_prefetch(reinterpret_cast<const char*>(next_), _MM_HINT_T1);
    }
  }

 private:
  static constexpr size_t kLine = 64;
  const uint8_t* next_ = nullptr;
  const uint8_t* end_ = nullptr;
  int lines_ = 0;
};

}  // namespace
}  // namespace mbq
