#include "operands.h"

#include <algorithm>
#include <cstring>

#include "../executorch/packed_weight.h"

namespace mbq::vulkan {
namespace {

// Channels of the image, whose padding value is one word of a stem's numbers.
constexpr int kMostImageChannels = 4;

template <typename T>
std::vector<uint8_t> bytes_of(const std::vector<T>& values) {
  const auto* const first = reinterpret_cast<const uint8_t*>(values.data());
  return {first, first + values.size() * sizeof(T)};
}

// A stem's weights as its shader reads them: [tap, channel, output], outputs padded to 4.
std::vector<uint8_t> stem_weights(const ConvShape& shape, const uint8_t* constant) {
  const size_t outputs = round_up(shape.outputs, 4);
  const size_t row = static_cast<size_t>(shape.kernel_height) * shape.kernel_width * shape.inputs;
  std::vector<int16_t> ordered(row * outputs);
  for (int o = 0; o < shape.outputs; ++o) {
    for (size_t k = 0; k < row; ++k) {
      std::memcpy(&ordered[k * outputs + o], constant + (o * row + k) * sizeof(int16_t),
                  sizeof(int16_t));
    }
  }
  return bytes_of(ordered);
}

class Gathering {
 public:
  Gathering(Device& device, const Plan& plan, const std::vector<Engine::Constant>& constants)
      : device_(device), plan_(plan), constants_(constants), floats_(plan.floats) {}

  Operands gather() {
    Operands& made = operands_;
    made.shape.packed_product = device_.packed_product();
    made.shape.limits = &device_.candidate().limits;
    made.shape.pooled = plan_.arena_bytes;
    made.shape.bias.resize(plan_.layers.size());
    made.shape.pad_value.resize(plan_.layers.size());
    for (const PlanValue& value : plan_.values) {
      if (value.kind == ValueKind::kImage) {
        made.image_bytes = static_cast<size_t>(value.height) * value.width * value.channels;
      }
    }
    for (size_t i = 0; i < plan_.layers.size(); ++i) add(plan_.layers[i], i);

    made.shape.image = made.shape.pooled + pooled_bytes_;
    const size_t arena_bytes = made.shape.image + made.image_bytes;
    require_bindable("activations", arena_bytes);
    for (const auto& entry : wanted_) require_bindable("weights", entry.bytes.size());
    made.arena = std::make_unique<Buffer>(device_, arena_bytes, Buffer::kDevice);
    made.image = std::make_unique<Buffer>(device_, made.image_bytes, Buffer::kHost);
    made.logits = std::make_unique<Buffer>(device_, made.logits_bytes, Buffer::kHost);
    made.floats =
        std::make_unique<Buffer>(device_, floats_.size() * sizeof(float), Buffer::kDevice);
    device_.upload(bytes_of(floats_), *made.floats);
    const std::vector<Part> parts = device_.constants().parts(device_, wanted_);
    made.constants.resize(plan_.keys.size());
    for (size_t i = 0; i < keys_.size(); ++i) made.constants[keys_[i]] = parts[i];
    return std::move(made);
  }

 private:
  void add(const PlanLayer& layer, size_t index) {
    if (layer.weight == kNone) return;
    const Engine::Constant& weight = constants_[layer.weight];
    std::string key = plan_.keys[layer.weight];
    std::vector<uint8_t> bytes;
    if (layer.kind == LayerKind::kStem) {
      const ConvShape shape = plan_.shape(layer);
      if (shape.inputs > kMostImageChannels) {
        throw DeviceError("Vulkan: an image of more than 4 channels; run it on the CPU");
      }
      bytes = stem_weights(shape, weight.data);
      key += " of a stem of " + std::to_string(shape.outputs);
      std::memcpy(&operands_.shape.pad_value[index], constants_[layer.second].data, shape.inputs);
    } else if (layer.kind == LayerKind::kHead) {
      bytes.assign(weight.data, weight.data + weight.size);
      const Engine::Constant& bias = constants_[layer.second];
      operands_.shape.bias[index] = floats_.size();
      floats_.resize(floats_.size() + layer.outputs);
      std::memcpy(&floats_[operands_.shape.bias[index]], bias.data, bias.size);
      pooled_bytes_ = plan_.values[plan_.lists[layer.first_input]].channels * sizeof(float);
      operands_.logits_bytes = layer.outputs * sizeof(float);
    } else {
      // Behind its header the payload is words of 16 codes.
      bytes.assign(weight.data + kPackedHeaderBytes, weight.data + weight.size);
    }
    if (std::find(keys_.begin(), keys_.end(), layer.weight) != keys_.end()) return;
    keys_.push_back(layer.weight);
    wanted_.push_back({std::move(key), std::move(bytes)});
  }

  void require_bindable(const char* what, size_t bytes) const {
    const size_t most = device_.candidate().limits.maxStorageBufferRange;
    if (bytes <= most) return;
    throw DeviceError(std::string("Vulkan: the level's ") + what + " take " +
                      std::to_string(bytes) + " bytes, the device binds at most " +
                      std::to_string(most));
  }

  Device& device_;
  const Plan& plan_;
  const std::vector<Engine::Constant>& constants_;
  std::vector<float> floats_;
  std::vector<SharedConstants::Wanted> wanted_;
  std::vector<int> keys_;  // of the plan, for each that is wanted
  size_t pooled_bytes_ = 0;
  Operands operands_{};
};

}  // namespace

Operands make_operands(Device& device, const Plan& plan,
                       const std::vector<Engine::Constant>& constants) {
  return Gathering(device, plan, constants).gather();
}

}  // namespace mbq::vulkan
