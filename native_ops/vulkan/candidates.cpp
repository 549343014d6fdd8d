// What the devices of this machine can do.

#include <cstring>

#include "device.h"

namespace mbq::vulkan {
namespace {

std::string text_of(uint32_t version) {
  return std::to_string(VK_API_VERSION_MAJOR(version)) + "." +
         std::to_string(VK_API_VERSION_MINOR(version)) + "." +
         std::to_string(VK_API_VERSION_PATCH(version));
}

std::string hex(const uint8_t* bytes, size_t count) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::string text;
  for (size_t i = 0; i < count; ++i) {
    text += kDigits[bytes[i] >> 4];
    text += kDigits[bytes[i] & 15];
  }
  return text;
}

// The first queue family that computes.
bool find_queue(const Instance& instance, Candidate& candidate) {
  uint32_t count = 0;
  instance.call().GetPhysicalDeviceQueueFamilyProperties(candidate.handle, &count, nullptr);
  std::vector<VkQueueFamilyProperties> families(count);
  instance.call().GetPhysicalDeviceQueueFamilyProperties(candidate.handle, &count, families.data());
  for (uint32_t i = 0; i < count; ++i) {
    if (!(families[i].queueFlags & VK_QUEUE_COMPUTE_BIT) || families[i].queueCount == 0) continue;
    candidate.queue_family = i;
    candidate.timestamp_period =
        families[i].timestampValidBits != 0 ? candidate.limits.timestampPeriod : 0.0f;
    candidate.description.clock = candidate.timestamp_period > 0;
    return true;
  }
  return false;
}

bool has_extension(const Instance& instance, VkPhysicalDevice device, const char* name) {
  uint32_t count = 0;
  if (instance.call().EnumerateDeviceExtensionProperties(device, nullptr, &count, nullptr) !=
      VK_SUCCESS) {
    return false;
  }
  std::vector<VkExtensionProperties> found(count);
  instance.call().EnumerateDeviceExtensionProperties(device, nullptr, &count, found.data());
  for (const VkExtensionProperties& extension : found) {
    if (std::strcmp(extension.extensionName, name) == 0) return true;
  }
  return false;
}

void look_closer(const Instance& instance, Candidate& candidate) {
  const InstanceFunctions& call = instance.call();
  const bool packed =
      has_extension(instance, candidate.handle, VK_KHR_SHADER_INTEGER_DOT_PRODUCT_EXTENSION_NAME);
  VkPhysicalDeviceShaderIntegerDotProductPropertiesKHR speed{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_PROPERTIES_KHR};
  VkPhysicalDeviceIDProperties id{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_ID_PROPERTIES};
  if (packed) id.pNext = &speed;
  VkPhysicalDeviceProperties2 properties{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_PROPERTIES_2};
  properties.pNext = &id;
  call.GetPhysicalDeviceProperties2(candidate.handle, &properties);
  const VkPhysicalDeviceProperties& base = properties.properties;
  candidate.cache_name = "vulkan-" + hex(id.driverUUID, VK_UUID_SIZE) + "-" +
                         hex(id.deviceUUID, VK_UUID_SIZE) + "-" +
                         hex(base.pipelineCacheUUID, VK_UUID_SIZE);
  if (!packed) return;
  VkPhysicalDeviceShaderIntegerDotProductFeaturesKHR feature{
      VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_SHADER_INTEGER_DOT_PRODUCT_FEATURES_KHR};
  VkPhysicalDeviceFeatures2 features{VK_STRUCTURE_TYPE_PHYSICAL_DEVICE_FEATURES_2};
  features.pNext = &feature;
  call.GetPhysicalDeviceFeatures2(candidate.handle, &features);
  candidate.has_packed_product = feature.shaderIntegerDotProduct;
  candidate.description.packed_product =
      feature.shaderIntegerDotProduct && speed.integerDotProduct4x8BitPackedUnsignedAccelerated;
}

Candidate candidate_of(const Instance& instance, VkPhysicalDevice device, int index) {
  Candidate candidate{};
  candidate.handle = device;
  VkPhysicalDeviceProperties properties;
  instance.call().GetPhysicalDeviceProperties(device, &properties);
  candidate.limits = properties.limits;
  DeviceDescription& description = candidate.description;
  description.index = index;
  description.name = properties.deviceName;
  description.driver = text_of(properties.driverVersion);
  description.version = text_of(properties.apiVersion);
  description.software = properties.deviceType == VK_PHYSICAL_DEVICE_TYPE_CPU;
  if (properties.apiVersion < VK_API_VERSION_1_1) {
    description.problem = "has Vulkan " + description.version + ", 1.1 is needed";
  } else if (!find_queue(instance, candidate)) {
    description.problem = "does not compute, it only draws";
  } else {
    look_closer(instance, candidate);
  }
  return candidate;
}

}  // namespace

std::vector<Candidate> candidates(const Instance& instance) {
  std::vector<Candidate> found;
  for (const VkPhysicalDevice device : instance.physical_devices()) {
    found.push_back(candidate_of(instance, device, static_cast<int>(found.size())));
  }
  return found;
}

std::vector<DeviceDescription> devices() {
  const auto instance = Instance::open();
  std::vector<DeviceDescription> found;
  for (const Candidate& candidate : candidates(*instance)) {
    found.push_back(candidate.description);
  }
  return found;
}

}  // namespace mbq::vulkan
