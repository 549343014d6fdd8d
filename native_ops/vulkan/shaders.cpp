// What the build made of shaders/*.comp.

#include "vulkan.h"

#include "average.spv.h"
#include "classify.spv.h"
#include "conv.spv.h"
#include "conv_packed.spv.h"
#include "depthwise.spv.h"
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
      {"depthwise", depthwise_words, sizeof depthwise_words},
      {"stream", stream_words, sizeof stream_words},
      {"pool", pool_words, sizeof pool_words},
      {"average", average_words, sizeof average_words},
      {"classify", classify_words, sizeof classify_words},
  };
}

}  // namespace mbq::vulkan
