#include "commands.h"

namespace mbq::vulkan {
namespace {

bool meet(const std::vector<Range>& some, const std::vector<Range>& others) {
  for (const Range& a : some) {
    for (const Range& b : others) {
      if (a.begin < b.end && b.begin < a.end) return true;
    }
  }
  return false;
}

}  // namespace

bool Hazards::must_wait(const Dispatch& dispatch) {
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

Bindings::Bindings(Device& device, const std::vector<Buffers>& wanted)
    : device_(device), sets_(wanted.size()) {
  const DeviceFunctions& call = device.call();
  const auto count = static_cast<uint32_t>(wanted.size());
  const VkDescriptorPoolSize size{VK_DESCRIPTOR_TYPE_STORAGE_BUFFER, count * kBindings};
  VkDescriptorPoolCreateInfo pool{VK_STRUCTURE_TYPE_DESCRIPTOR_POOL_CREATE_INFO};
  pool.maxSets = count;
  pool.poolSizeCount = 1;
  pool.pPoolSizes = &size;
  require(call.CreateDescriptorPool(device.handle(), &pool, nullptr, &pool_), "a pool of bindings");
  const std::vector<VkDescriptorSetLayout> layouts(count, device.pipelines().set_layout());
  VkDescriptorSetAllocateInfo allocation{VK_STRUCTURE_TYPE_DESCRIPTOR_SET_ALLOCATE_INFO};
  allocation.descriptorPool = pool_;
  allocation.descriptorSetCount = count;
  allocation.pSetLayouts = layouts.data();
  const VkResult result = call.AllocateDescriptorSets(device.handle(), &allocation, sets_.data());
  if (result != VK_SUCCESS) {
    call.DestroyDescriptorPool(device.handle(), pool_, nullptr);
    require(result, "bindings");
  }
  for (uint32_t i = 0; i < count; ++i) {
    VkWriteDescriptorSet write{VK_STRUCTURE_TYPE_WRITE_DESCRIPTOR_SET};
    write.dstSet = sets_[i];
    write.descriptorCount = kBindings;
    write.descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
    write.pBufferInfo = wanted[i].data();
    call.UpdateDescriptorSets(device.handle(), 1, &write, 0, nullptr);
  }
}

Bindings::~Bindings() {
  if (!device_.hung()) device_.call().DestroyDescriptorPool(device_.handle(), pool_, nullptr);
}

Bindings::Buffers buffers_of(const Operands& operands, const Dispatch& dispatch) {
  Bindings::Buffers buffers = {{{operands.arena->handle(), 0, VK_WHOLE_SIZE},
                                {operands.floats->handle(), 0, VK_WHOLE_SIZE},  // has no weights
                                {operands.floats->handle(), 0, VK_WHOLE_SIZE},
                                {operands.logits->handle(), 0, VK_WHOLE_SIZE}}};
  if (dispatch.weight != kNone) {
    const Part& part = operands.weights_of(dispatch);
    buffers[1] = {part.buffer->handle(), part.offset, part.size};
  }
  return buffers;
}

Clock::Clock(Device& device, uint32_t count) : device_(device) {
  if (!device.has_clock()) return;
  VkQueryPoolCreateInfo queries{VK_STRUCTURE_TYPE_QUERY_POOL_CREATE_INFO};
  queries.queryType = VK_QUERY_TYPE_TIMESTAMP;
  queries.queryCount = count;
  require(device.call().CreateQueryPool(device.handle(), &queries, nullptr, &pool_), "a clock");
  ticks_.resize(count);
}

Clock::~Clock() {
  if (!device_.hung()) device_.call().DestroyQueryPool(device_.handle(), pool_, nullptr);
}

void Clock::reset(VkCommandBuffer commands) const {
  if (*this) device_.call().CmdResetQueryPool(commands, pool_, 0, count());
}

void Clock::note(VkCommandBuffer commands, VkPipelineStageFlagBits stage, uint32_t index) const {
  if (*this) device_.call().CmdWriteTimestamp(commands, stage, pool_, index);
}

bool Clock::read(uint32_t first, uint32_t count) {
  return *this && device_.call().GetQueryPoolResults(
                      device_.handle(), pool_, first, count, count * sizeof(uint64_t),
                      &ticks_[first], sizeof(uint64_t), VK_QUERY_RESULT_64_BIT) == VK_SUCCESS;
}

double Clock::microseconds(uint32_t from, uint32_t to) const {
  return static_cast<double>(ticks_[to] - ticks_[from]) * device_.candidate().timestamp_period /
         1000.0;
}

void record_barrier(const Device& device, VkCommandBuffer commands, VkPipelineStageFlags after,
                    VkAccessFlags done, VkPipelineStageFlags before, VkAccessFlags coming) {
  VkMemoryBarrier memory{VK_STRUCTURE_TYPE_MEMORY_BARRIER};
  memory.srcAccessMask = done;
  memory.dstAccessMask = coming;
  device.call().CmdPipelineBarrier(commands, after, before, 0, 1, &memory, 0, nullptr, 0, nullptr);
}

void record_wait(const Device& device, VkCommandBuffer commands) {
  record_barrier(device, commands, VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, kShaderReadWrite,
                 VK_PIPELINE_STAGE_COMPUTE_SHADER_BIT, kShaderReadWrite);
}

void record_dispatch(Device& device, VkCommandBuffer commands, const Dispatch& dispatch,
                     VkPipeline pipeline, const VkDescriptorSet& set) {
  const DeviceFunctions& call = device.call();
  const VkPipelineLayout layout = device.pipelines().layout();
  call.CmdBindPipeline(commands, VK_PIPELINE_BIND_POINT_COMPUTE, pipeline);
  call.CmdBindDescriptorSets(commands, VK_PIPELINE_BIND_POINT_COMPUTE, layout, 0, 1, &set, 0,
                             nullptr);
  call.CmdPushConstants(commands, layout, VK_SHADER_STAGE_COMPUTE_BIT, 0,
                        static_cast<uint32_t>(dispatch.numbers.size()), dispatch.numbers.data());
  call.CmdDispatch(commands, dispatch.groups[0], dispatch.groups[1], 1);
}

}  // namespace mbq::vulkan
