#include "transform.h"

#include <cstring>

#include "commands.h"
#include "variants.h"

namespace mbq::vulkan {
namespace {

constexpr uint32_t kTaps = 16, kQuadsAtOnce = 4;

}  // namespace

size_t transformed_bytes(const ConvShape& shape) {
  // Vectors of 16 bytes: for every four outputs and four inputs, and one more with the sums.
  const size_t quads = divide_up(shape.outputs, 4), words = divide_up(shape.inputs, 4);
  return quads * (words + 1) * kTaps * 16;
}

Part transformed_weights(Device& device, const Plan& plan, int layer, const Operands& operands) {
  const int weight = plan.layers[layer].weight;
  const ConvShape shape = plan.shape(plan.layers[layer]);
  const Part& packed = operands.constants[weight];
  const bool by_output = device.packed_product();
  const std::string key = plan.keys[weight] + (by_output ? " f2x2 by output" : " f2x2 by input");
  return device.constants().made(device, key, transformed_bytes(shape), [&](const Buffer& to) {
    LayerNumbers numbers{};
    numbers.channels = shape.inputs;
    numbers.outputs = shape.outputs;
    Dispatch dispatch{};
    dispatch.shader = Shader::kWinogradWeights;
    dispatch.constants = {kTaps, kQuadsAtOnce, by_output};
    dispatch.groups[0] = 1;
    dispatch.groups[1] = divide_up(divide_up(shape.outputs, 4), kQuadsAtOnce);
    dispatch.numbers.resize(sizeof numbers);
    std::memcpy(dispatch.numbers.data(), &numbers, sizeof numbers);
    const VkDescriptorBufferInfo written{to.handle(), 0, VK_WHOLE_SIZE};
    const Bindings bindings(
        device,
        {{{written, {packed.buffer->handle(), packed.offset, packed.size}, written, written}}});
    const VkPipeline pipeline = device.pipelines().get(dispatch.shader, dispatch.constants);
    device.run_once([&](VkCommandBuffer commands) {
      record_dispatch(device, commands, dispatch, pipeline, bindings[0]);
      record_wait(device, commands);
    });
  });
}

}  // namespace mbq::vulkan
