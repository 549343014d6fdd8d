// The plan as a GPU likes it: as much as possible at the same time.

#pragma once

#include "../engine/plan.h"

namespace mbq::vulkan {

// The same layers in waves: a layer comes as soon as what it reads is there, so that the branches
// of a level run side by side, and there are as many waves as one branch has layers. Values get new
// places for that, without borders, which no shader needs; those of a wave never share bytes with
// what it reads.
Plan in_waves(const Plan& plan);

}  // namespace mbq::vulkan
