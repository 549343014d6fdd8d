// A level on a device: everything is allocated, uploaded and recorded when it is made. A frame is
// then a copy of the image, one submit, one fence and a copy of the logits.

#include <algorithm>
#include <cstring>
#include <optional>

#include "../engine/stopwatch.h"
#include "choose.h"
#include "commands.h"
#include "schedule.h"

namespace mbq::vulkan {
namespace {

class RecordedLevel final : public Level {
 public:
  RecordedLevel(std::shared_ptr<Device> device, const Plan& plan,
                const std::vector<Engine::Constant>& constants, bool low_memory)
      : device_(std::move(device)),
        call_(device_->call()),
        plan_(in_waves(plan)),
        operands_(make_operands(*device_, plan_, constants)) {
    choose_variants(*device_, plan_, low_memory, operands_);
    dispatches_ = dispatches_of(plan_, operands_.shape);
    try {
      make_commands();
    } catch (...) {
      release();
      throw;
    }
    device_->pipelines().keep();
  }

  ~RecordedLevel() override { release(); }

  void run(const uint8_t* image, float* logits, std::vector<LayerTime>* profile) override {
    const Stopwatch watch;
    std::memcpy(operands_.image->mapped(), image, operands_.image_bytes);
    if (profile != nullptr && profiled_ == VK_NULL_HANDLE) profiled_ = record(true);
    ++statistics_.submits;
    const double waited = device_->run(profile != nullptr ? profiled_ : frame_, fence_);
    std::memcpy(logits, operands_.logits->mapped(), operands_.logits_bytes);
    read_clock(profile);
    ++statistics_.frames;
    statistics_.fence_microseconds = waited;
    statistics_.host_microseconds = watch.microseconds() - waited;
  }

  Statistics statistics() const override {
    Statistics result = statistics_;
    result.uploaded_bytes = device_->uploaded_bytes;
    result.device_bytes = device_->device_bytes;
    return result;
  }

  const std::vector<DispatchSize>& dispatches() const override { return sizes_; }

  std::vector<uint8_t> read(int index) const override {
    const PlanValue& value = plan_.values.at(index);
    const bool codes = value.kind == ValueKind::kCodes;
    const size_t pixel = codes ? value.pixel() : value.channels * sizeof(float);
    return device_->download(*operands_.arena, value.offset, value.height * value.width * pixel);
  }

 private:
  int64_t macs(const PlanLayer& layer) const {
    if (layer.kernel_height == 0) return 0;
    const ConvShape shape = plan_.shape(layer);
    return int64_t{shape.out_height()} * shape.out_width() * shape.outputs * shape.kernel_height *
           shape.kernel_width * (layer.kind == LayerKind::kDepthwise ? 1 : shape.inputs);
  }

  void make_commands() {
    std::vector<Bindings::Buffers> buffers;
    for (const Dispatch& dispatch : dispatches_) {
      pipelines_.push_back(device_->pipelines().get(dispatch.shader, dispatch.constants));
      sizes_.push_back(dispatch.size);
      buffers.push_back(buffers_of(operands_, dispatch));
    }
    bindings_.emplace(*device_, buffers);
    clock_.emplace(*device_, static_cast<uint32_t>(dispatches_.size()) + 1);
    const VkFenceCreateInfo fence{VK_STRUCTURE_TYPE_FENCE_CREATE_INFO};
    require(call_.CreateFence(device_->handle(), &fence, nullptr, &fence_), "a fence");
    frame_ = record(false);
  }

  // The frame. With a profile the device's clock is read after every dispatch, which then run one
  // by one; without it at the begin and the end.
  VkCommandBuffer record(bool profile) {
    const std::lock_guard lock(device_->command_mutex());
    VkCommandBufferAllocateInfo allocation{VK_STRUCTURE_TYPE_COMMAND_BUFFER_ALLOCATE_INFO};
    allocation.commandPool = device_->command_pool();
    allocation.level = VK_COMMAND_BUFFER_LEVEL_PRIMARY;
    allocation.commandBufferCount = 1;
    VkCommandBuffer commands = VK_NULL_HANDLE;
    require(call_.AllocateCommandBuffers(device_->handle(), &allocation, &commands),
            "recording a frame");
    (profile ? profiled_ : frame_) = commands;
    const VkCommandBufferBeginInfo begin{VK_STRUCTURE_TYPE_COMMAND_BUFFER_BEGIN_INFO};
    require(call_.BeginCommandBuffer(commands, &begin), "recording a frame");
    const auto last = static_cast<uint32_t>(dispatches_.size());
    clock_->reset(commands);
    clock_->note(commands, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, 0);
    // From there the stem reads each pixel many times: over a bus that would be slow.
    const VkBufferCopy region{0, operands_.shape.image, operands_.image_bytes};
    call_.CmdCopyBuffer(commands, operands_.image->handle(), operands_.arena->handle(), 1, &region);
    record_barrier(*device_, commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
                   VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_READ_BIT);
    Hazards hazards;
    for (uint32_t i = 0; i < last; ++i) {
      const Dispatch& dispatch = dispatches_[i];
      sizes_[i].waits = hazards.must_wait(dispatch);
      if (sizes_[i].waits || (profile && i > 0)) record_wait(*device_, commands);
      record_dispatch(*device_, commands, dispatch, pipelines_[i], (*bindings_)[i]);
      if (profile || i + 1 == last) {
        clock_->note(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, profile ? i + 1 : last);
      }
    }
    record_barrier(*device_, commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, kShaderReadWrite,
                   VK_PIPELINE_STAGE_HOST_BIT, VK_ACCESS_HOST_READ_BIT);
    require(call_.EndCommandBuffer(commands), "recording a frame");
    return commands;
  }

  void read_clock(std::vector<LayerTime>* profile) {
    if (profile != nullptr) profile->clear();
    const auto last = static_cast<uint32_t>(dispatches_.size());
    if (!clock_->read(0, 1) || !clock_->read(last, 1)) return;
    statistics_.device_microseconds = clock_->microseconds(0, last);
    if (profile == nullptr || !clock_->read(0, last + 1)) return;
    for (uint32_t i = 0; i < last; ++i) {
      const Dispatch& dispatch = dispatches_[i];
      const PlanLayer& layer = plan_.layers[dispatch.layer];
      const std::string& tile = sizes_[i].tile;
      profile->push_back({layer.branch, sizes_[i].layer,
                          "vulkan " + sizes_[i].shader + (tile.empty() ? "" : " " + tile),
                          clock_->microseconds(0, i), clock_->microseconds(i, i + 1), macs(layer),
                          dispatch.weight == kNone ? 0 : operands_.weights_of(dispatch).size});
    }
  }

  void release() {
    if (device_->hung()) return;
    {
      const std::lock_guard lock(device_->command_mutex());
      for (const VkCommandBuffer commands : {frame_, profiled_}) {
        if (commands == VK_NULL_HANDLE) continue;
        call_.FreeCommandBuffers(device_->handle(), device_->command_pool(), 1, &commands);
      }
    }
    call_.DestroyFence(device_->handle(), fence_, nullptr);
  }

  std::shared_ptr<Device> device_;  // goes last
  const DeviceFunctions& call_;
  Plan plan_;
  Operands operands_;
  std::vector<Dispatch> dispatches_;
  std::vector<DispatchSize> sizes_;
  std::vector<VkPipeline> pipelines_;
  std::optional<Bindings> bindings_;
  std::optional<Clock> clock_;
  VkFence fence_ = VK_NULL_HANDLE;
  VkCommandBuffer frame_ = VK_NULL_HANDLE, profiled_ = VK_NULL_HANDLE;
  Statistics statistics_{};
};

}  // namespace

std::unique_ptr<Level> make_level(std::shared_ptr<Device> device, const Plan& plan,
                                  const std::vector<Engine::Constant>& constants, bool low_memory) {
  return std::make_unique<RecordedLevel>(std::move(device), plan, constants, low_memory);
}

}  // namespace mbq::vulkan
