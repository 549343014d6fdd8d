#include "pipelines.h"

#include "cache_file.h"
#include "device.h"

namespace mbq::vulkan {

Pipelines::Pipelines(Device& device, const std::string& cache_name)
    : device_(device), path_(cache_path(cache_name)) {
  const DeviceFunctions& call = device.call();
  try {
    VkDescriptorSetLayoutBinding bindings[kBindings] = {};
    for (uint32_t i = 0; i < kBindings; ++i) {
      bindings[i].binding = i;
      bindings[i].descriptorType = VK_DESCRIPTOR_TYPE_STORAGE_BUFFER;
      bindings[i].descriptorCount = 1;
      bindings[i].stageFlags = VK_SHADER_STAGE_COMPUTE_BIT;
    }
    VkDescriptorSetLayoutCreateInfo sets{VK_STRUCTURE_TYPE_DESCRIPTOR_SET_LAYOUT_CREATE_INFO};
    sets.bindingCount = kBindings;
    sets.pBindings = bindings;
    require(call.CreateDescriptorSetLayout(device.handle(), &sets, nullptr, &set_layout_),
            "the layout of bindings");
    const VkPushConstantRange range{VK_SHADER_STAGE_COMPUTE_BIT, 0, kPushBytes};
    VkPipelineLayoutCreateInfo layout{VK_STRUCTURE_TYPE_PIPELINE_LAYOUT_CREATE_INFO};
    layout.setLayoutCount = 1;
    layout.pSetLayouts = &set_layout_;
    layout.pushConstantRangeCount = 1;
    layout.pPushConstantRanges = &range;
    require(call.CreatePipelineLayout(device.handle(), &layout, nullptr, &layout_),
            "the layout of pipelines");
    const std::vector<uint8_t> kept = read_cache(path_);
    VkPipelineCacheCreateInfo cache{VK_STRUCTURE_TYPE_PIPELINE_CACHE_CREATE_INFO};
    cache.initialDataSize = kept.size();
    cache.pInitialData = kept.data();
    require(call.CreatePipelineCache(device.handle(), &cache, nullptr, &cache_),
            "the cache of pipelines");
  } catch (...) {
    release();
    throw;
  }
}

Pipelines::~Pipelines() { release(); }

void Pipelines::release() {
  const DeviceFunctions& call = device_.call();
  for (const auto& [key, pipeline] : pipelines_) {
    call.DestroyPipeline(device_.handle(), pipeline, nullptr);
  }
  call.DestroyPipelineCache(device_.handle(), cache_, nullptr);
  call.DestroyPipelineLayout(device_.handle(), layout_, nullptr);
  call.DestroyDescriptorSetLayout(device_.handle(), set_layout_, nullptr);
}

VkPipeline Pipelines::get(Shader shader, const std::vector<uint32_t>& constants) {
  const std::lock_guard lock(mutex_);
  VkPipeline& pipeline = pipelines_[{shader, constants}];
  if (pipeline == VK_NULL_HANDLE) {
    pipeline = compile(shader, constants);
    changed_ = true;
  }
  return pipeline;
}

VkPipeline Pipelines::compile(Shader shader, const std::vector<uint32_t>& constants) {
  const DeviceFunctions& call = device_.call();
  const ShaderCode code = shader_code()[static_cast<size_t>(shader)];
  const std::string what = std::string("the shader ") + code.name;
  VkShaderModuleCreateInfo module{VK_STRUCTURE_TYPE_SHADER_MODULE_CREATE_INFO};
  module.codeSize = code.bytes;
  module.pCode = code.words;
  VkComputePipelineCreateInfo info{VK_STRUCTURE_TYPE_COMPUTE_PIPELINE_CREATE_INFO};
  info.stage.sType = VK_STRUCTURE_TYPE_PIPELINE_SHADER_STAGE_CREATE_INFO;
  info.stage.stage = VK_SHADER_STAGE_COMPUTE_BIT;
  info.stage.pName = "main";
  info.layout = layout_;
  require(call.CreateShaderModule(device_.handle(), &module, nullptr, &info.stage.module),
          what.c_str());
  std::vector<VkSpecializationMapEntry> entries;
  for (uint32_t i = 0; i < constants.size(); ++i) {
    entries.push_back({i, i * static_cast<uint32_t>(sizeof(uint32_t)), sizeof(uint32_t)});
  }
  const VkSpecializationInfo specialization{static_cast<uint32_t>(entries.size()), entries.data(),
                                            constants.size() * sizeof(uint32_t), constants.data()};
  info.stage.pSpecializationInfo = &specialization;
  VkPipeline pipeline = VK_NULL_HANDLE;
  const VkResult result =
      call.CreateComputePipelines(device_.handle(), cache_, 1, &info, nullptr, &pipeline);
  call.DestroyShaderModule(device_.handle(), info.stage.module, nullptr);
  require(result, what.c_str());
  return pipeline;
}

void Pipelines::keep() {
  const std::lock_guard lock(mutex_);
  if (!changed_) return;
  changed_ = false;
  const DeviceFunctions& call = device_.call();
  size_t size = 0;
  if (call.GetPipelineCacheData(device_.handle(), cache_, &size, nullptr) != VK_SUCCESS) return;
  std::vector<uint8_t> contents(size);
  if (call.GetPipelineCacheData(device_.handle(), cache_, &size, contents.data()) != VK_SUCCESS) {
    return;
  }
  contents.resize(size);
  write_cache(path_, contents);
}

}  // namespace mbq::vulkan
