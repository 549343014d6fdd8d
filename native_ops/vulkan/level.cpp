// A level on a device: everything is allocated, uploaded and recorded when it is made. A frame is
// then a copy of the image, one submit, one fence and a copy of the logits.

#include <algorithm>
#include <cstring>

#include "../engine/stopwatch.h"
#include "device.h"
#include "operands.h"
#include "schedule.h"

namespace mbq::vulkan {
namespace {

constexpr VkAccessFlags kReadWrite = VK_ACCESS_SHADER_READ_BIT | VK_ACCESS_SHADER_WRITE_BIT;

// Which dispatches have to wait for those before them: a barrier makes everything before it
// visible, so only what came since the last one counts. Layers of different branches, and a block's
// first convolution and its shortcut, run at the same time.
class Hazards {
 public:
  bool must_wait(const Dispatch& dispatch) {
    const bool wait = meet(dispatch.reads, written_) || meet(dispatch.writes, written_) ||
                      meet(dispatch.writes, read_);
    if (wait) {
      read_.clear();
      written_.clear();
    }
    read_.insert(read_.end(), dispatch.reads.begin(), dispatch.reads.end());
    written_.insert(written_.end(), dispatch.writes.begin(), dispatch.writes.end());
    return wait;
  }

 private:
  static bool meet(const std::vector<Range>& some, const std::vector<Range>& others) {
    for (const Range& a : some) {
      for (const Range& b : others) {
        if (a.begin < b.end && b.begin < a.end) return true;
      }
    }
    return false;
  }

  std::vector<Range> read_, written_;
};

class RecordedLevel final : public Level {
 public:
  RecordedLevel(std::shared_ptr<Device> device, const Plan& plan,
                const std::vector<Engine::Constant>& constants)
      : device_(std::move(device)),
        call_(device_->call()),
        plan_(in_waves(plan)),
        operands_(make_operands(*device_, plan_, constants)),
        dispatches_(dispatches_of(plan_, operands_.shape)) {
    try {
      make_descriptors();
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

  void make_descriptors() {
    const auto count = static_cast<uint32_t>(dispatches_.size());
    const VkDescriptorPoolSize size{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, count * kBindings};
    VkDescriptorPoolCreateInfo pool{VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO};
    pool.maxSets = count;
    pool.poolSizeCount = 1;
    pool.pPoolSizes = &size;
    require(call_.CreateDescriptorPool(device_->handle(), &pool, nullptr, &pool_),
            "a pool of bindings");
    const std::vector<VkDescriptorSetLayout> layouts(count, device_->pipelines().set_layout());
    VkDescriptorSetAllocateInfo allocation{VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO};
    allocation.descriptorPool = pool_;
    allocation.descriptorSetCount = count;
    allocation.pSetLayouts = layouts.data();
    sets_.resize(count);
    require(call_.AllocateDescriptorSets(device_->handle(), &allocation, sets_.data()), "bindings");
    for (uint32_t i = 0; i < count; ++i) {
      VkDescriptorBufferInfo buffers[kBindings] = {
          {operands_.arena->handle(), 0, VK_WHOLE_SIZE},
          {operands_.floats->handle(), 0, VK_WHOLE_SIZE},  // where there are no weights
          {operands_.floats->handle(), 0, VK_WHOLE_SIZE},
          {operands_.logits->handle(), 0, VK_WHOLE_SIZE}};
      if (dispatches_[i].weight != kNone) {
        const Part& part = operands_.constants[dispatches_[i].weight];
        buffers[1] = {part.buffer->handle(), part.offset, part.size};
      }
      VkWriteDescriptorSet write{VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET};
      write.dstSet = sets_[i];
      write.descriptorCount = kBindings;
      write.descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
      write.pBufferInfo = buffers;
      call_.UpdateDescriptorSets(device_->handle(), 1, &write, 0, nullptr);
    }
  }

  void make_commands() {
    for (const Dispatch& dispatch : dispatches_) {
      pipelines_.push_back(device_->pipelines().get(dispatch.shader, dispatch.constants));
      sizes_.push_back(dispatch.size);
    }
    if (device_->candidate().timestamp_period > 0) {
      VkQueryPoolCreateInfo queries{VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO};
      queries.queryType = VK_QUERY_TYPE_TIMESTAMP;
      queries.queryCount = static_cast<uint32_t>(dispatches_.size()) + 1;
      require(call_.CreateQueryPool(device_->handle(), &queries, nullptr, &queries_), "a clock");
      ticks_.resize(queries.queryCount);
    }
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
    if (queries_ != VK_NULL_HANDLE) {
      call_.CmdResetQueryPool(commands, queries_, 0, last + 1);
      call_.CmdWriteTimestamp(commands, VK_PIPELINE_STAGE_TOP_OF_PIPE_BIT, queries_, 0);
    }
    // From there the stem reads each pixel many times: over a bus that would be slow.
    const VkBufferCopy region{0, operands_.shape.image, operands_.image_bytes};
    call_.CmdCopyBuffer(commands, operands_.image->handle(), operands_.arena->handle(), 1, &region);
    barrier(commands, VK_PIPELINE_STAGE_TRANSFER_BIT, VK_ACCESS_TRANSFER_WRITE_BIT,
            VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, VK_ACCESS_SHADER_READ_BIT);
    Hazards hazards;
    for (uint32_t i = 0; i < last; ++i) {
      const Dispatch& dispatch = dispatches_[i];
      sizes_[i].waits = hazards.must_wait(dispatch);
      if (sizes_[i].waits || (profile && i > 0)) {
        barrier(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, kReadWrite,
                VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, kReadWrite);
      }
      call_.CmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipelines_[i]);
      const VkPipelineLayout layout = device_->pipelines().layout();
      call_.CmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, &sets_[i],
                                  0, nullptr);
      call_.CmdPushConstants(commands, layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                             static_cast<uint32_t>(dispatch.numbers.size()),
                             dispatch.numbers.data());
      call_.CmdDispatch(commands, dispatch.groups[0], dispatch.groups[1], 1);
      if (queries_ != VK_NULL_HANDLE && (profile || i + 1 == last)) {
        call_.CmdWriteTimestamp(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, queries_,
                                profile ? i + 1 : last);
      }
    }
    barrier(commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, kReadWrite, VK_PIPELINE_STAGE_HOST_BIT,
            VK_ACCESS_HOST_READ_BIT);
    require(call_.EndCommandBuffer(commands), "recording a frame");
    return commands;
  }

  void barrier(VkCommandBuffer commands, VkPipelineStageFlags after, VkAccessFlags done,
               VkPipelineStageFlags before, VkAccessFlags coming) const {
    VkMemoryBarrier memory{VK_STRUCTURE_TYPE_MEMORY_BARRIER};
    memory.srcAccessMask = done;
    memory.dstAccessMask = coming;
    call_.CmdPipelineBarrier(commands, after, before, 0, 1, &memory, 0, nullptr, 0, nullptr);
  }

  void read_clock(std::vector<LayerTime>* profile) {
    if (profile != nullptr) profile->clear();
    if (queries_ == VK_NULL_HANDLE) return;
    const auto last = static_cast<uint32_t>(dispatches_.size());
    const auto read = [&](uint32_t first, uint32_t count) {
      return call_.GetQueryPoolResults(device_->handle(), queries_, first, count,
                                       count * sizeof(uint64_t), &ticks_[first], sizeof(uint64_t),
                                       VK_QUERY_RESULT_64_BIT) == VK_SUCCESS;
    };
    const double microseconds = device_->candidate().timestamp_period / 1000.0;
    if (!read(0, 1) || !read(last, 1)) return;
    statistics_.device_microseconds = (ticks_[last] - ticks_[0]) * microseconds;
    if (profile == nullptr || !read(0, last + 1)) return;
    for (uint32_t i = 0; i < last; ++i) {
      const PlanLayer& layer = plan_.layers[dispatches_[i].layer];
      const int weight = dispatches_[i].weight;
      profile->push_back({layer.branch, sizes_[i].layer, "vulkan " + sizes_[i].shader,
                          (ticks_[i] - ticks_[0]) * microseconds,
                          (ticks_[i + 1] - ticks_[i]) * microseconds, macs(layer),
                          weight == kNone ? 0 : operands_.constants[weight].size});
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
    call_.DestroyQueryPool(device_->handle(), queries_, nullptr);
    call_.DestroyDescriptorPool(device_->handle(), pool_, nullptr);
  }

  std::shared_ptr<Device> device_;  // goes last
  const DeviceFunctions& call_;
  Plan plan_;
  Operands operands_;
  std::vector<Dispatch> dispatches_;
  std::vector<DispatchSize> sizes_;
  std::vector<VkPipeline> pipelines_;
  VkDescriptorPool pool_ = VK_NULL_HANDLE;
  std::vector<VkDescriptorSet> sets_;
  VkQueryPool queries_ = VK_NULL_HANDLE;
  std::vector<uint64_t> ticks_;
  VkFence fence_ = VK_NULL_HANDLE;
  VkCommandBuffer frame_ = VK_NULL_HANDLE, profiled_ = VK_NULL_HANDLE;
  Statistics statistics_{};
};

}  // namespace

std::unique_ptr<Level> make_level(std::shared_ptr<Device> device, const Plan& plan,
                                  const std::vector<Engine::Constant>& constants) {
  return std::make_unique<RecordedLevel>(std::move(device), plan, constants);
}

}  // namespace mbq::vulkan
