// What the build made of shaders/*.comp.

#include "vulkan.h"

#include "average.spv.h"
#include "classify.spv.h"
#include "conv.spv.h"
#include "conv_packed.spv.h"
#include "depthwise.spv.h"
#include "f2x2.spv.h"
#include "f2x2_packed.spv.h"
#include "f2x2_weights.spv.h"
#include "pool.spv.h"
#include "stem.spv.h"
#include "stream.spv.h"

namespace mbq::vulkan {

// In the order of Shader.
std::vector<ShaderCode> shader_code() {
  return {
      {"stem", stem_words, sizeof stem_words},
      {"conv", conv_words, sizeof conv_words},
      {"conv_packed", conv_packed_words, sizeof conv_packed_words},
      {"f2x2", f2x2_words, sizeof f2x2_words},
      {"f2x2_packed", f2x2_packed_words, sizeof f2x2_packed_words},
      {"f2x2_weights", f2x2_weights_words, sizeof f2x2_weights_words},
      {"depthwise", depthwise_words, sizeof depthwise_words},
      {"stream", stream_words, sizeof stream_words},
      {"pool", pool_words, sizeof pool_words},
      {"average", average_words, sizeof average_words},
      {"classify", classify_words, sizeof classify_words},
  };
}

}  // namespace mbq::vulkan
