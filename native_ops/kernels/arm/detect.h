// Which extensions of ARMv8 this CPU has.

#pragma once

namespace mbq {

struct ArmFeatures {
  bool dot;   // SDOT, UDOT
  bool i8mm;  // SMMLA, USMMLA
};

// What the kernel lets programs use.
ArmFeatures arm_features();

}  // namespace mbq
