#include "detect.h"

#if defined(__aarch64__) && defined(__linux__)

#include <sys/auxv.h>

namespace mbq {
namespace {

// Linux' <asm/hwcap.h>; older headers lack some of them.
constexpr unsigned long kHwcapAsimdDp = 1ul << 20;
constexpr unsigned long kHwcap2I8mm = 1ul << 13;

}  // namespace

ArmFeatures arm_features() {
  const bool dot = (getauxval(AT_HWCAP) & kHwcapAsimdDp) != 0;
  const bool i8mm = (getauxval(AT_HWCAP2) & kHwcap2I8mm) != 0;
  // The table of i8mm is compiled with both.
  return {dot, dot && i8mm};
}

}  // namespace mbq

#else

namespace mbq {
ArmFeatures arm_features() { return {false, false}; }
}  // namespace mbq

#endif
