// What the dispatcher offers on this CPU, and whether the CPU would notice a wrong offer.
//
//   cpu_check          the tables that are offered, one a line, slowest first
//   cpu_check dot      enters an instruction of that extension: dies of SIGILL where it is missing
//   cpu_check i8mm

#include <cstdio>
#include <cstring>

#include "../../kernels/layers.h"

int main(int count, char** arguments) {
  if (count == 1) {
    for (const auto* table = mbq::available_layers(); *table != nullptr; ++table) {
      std::printf("%s\n", (*table)->name);
    }
    return 0;
  }
  if (std::strcmp(arguments[1], "dot") == 0) {
    asm volatile(".arch armv8.2-a+dotprod\n\tsdot v0.4s, v1.16b, v2.4b[0]" ::: "v0");
    return 0;
  }
  if (std::strcmp(arguments[1], "i8mm") == 0) {
    asm volatile(".arch armv8.2-a+i8mm\n\tusmmla v0.4s, v1.16b, v2.16b" ::: "v0");
    return 0;
  }
  std::fprintf(stderr, "cpu_check: no extension %s\n", arguments[1]);
  return 2;
}
