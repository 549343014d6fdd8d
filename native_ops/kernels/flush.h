// Cold caches, for what is measured as a frame finds it.

#pragma once

#include <cstddef>
#include <cstdint>

namespace mbq {

// Takes bytes out of all caches, where the CPU lets a program do that.
inline void flush(const uint8_t* data, size_t bytes) {
  constexpr size_t kLine = 64;
  for (size_t i = 0; i < bytes; i += kLine) {
#if defined(__x86_64__)
    __builtin_ia32_clflush(data + i);
#elif defined(__aarch64__)
    asm volatile("dc civac, %0" : : "r"(data + i) : "memory");
#else
    (void)data;
#endif
  }
}

}  // namespace mbq
