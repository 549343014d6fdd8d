#include "loader.h"

#include <dlfcn.h>

#include <mutex>

namespace mbq::vulkan {
namespace {

constexpr const char* kLoader = "libvulkan.so.1";

const char* name_of(VkResult result) {
  switch (result) {
    case VK_ERROR_OUT_OF_HOST_MEMORY:
      return "out of memory";
    case VK_ERROR_OUT_OF_DEVICE_MEMORY:
      return "out of device memory";
    case VK_ERROR_INITIALIZATION_FAILED:
      return "its initialisation failed";
    case VK_ERROR_DEVICE_LOST:
      return "the device was lost";
    case VK_ERROR_MEMORY_MAP_FAILED:
      return "its memory cannot be mapped";
    case VK_ERROR_LAYER_NOT_PRESENT:
      return "a layer is missing";
    case VK_ERROR_EXTENSION_NOT_PRESENT:
      return "an extension is missing";
    case VK_ERROR_FEATURE_NOT_PRESENT:
      return "a feature is missing";
    case VK_ERROR_INCOMPATIBLE_DRIVER:
      return "no driver is installed that fits";
    case VK_ERROR_TOO_MANY_OBJECTS:
      return "too many objects";
    default:
      return nullptr;
  }
}

// Loaded once and kept: drivers do not like to be unloaded.
PFN_vkGetInstanceProcAddr load() {
  static std::mutex mutex;
  static PFN_vkGetInstanceProcAddr found = nullptr;
  const std::lock_guard lock(mutex);
  if (found != nullptr) return found;
  void* const library = dlopen(kLoader, RTLD_NOW | RTLD_LOCAL);
  if (library == nullptr) {
    throw DeviceError(std::string("Vulkan's library does not load (") + dlerror() +
                      "); on Debian or Ubuntu: apt-get install libvulkan1 mesa-vulkan-drivers");
  }
  found = reinterpret_cast<PFN_vkGetInstanceProcAddr>(dlsym(library, "vkGetInstanceProcAddr"));
  if (found == nullptr) {
    dlclose(library);
    throw DeviceError(std::string(kLoader) + " is not Vulkan's library");
  }
  return found;
}

}  // namespace

void require(VkResult result, const char* what) {
  if (result == VK_SUCCESS) return;
  const char* const name = name_of(result);
  throw DeviceError(std::string("Vulkan: ") + what + ": " +
                    (name != nullptr ? name : "error " + std::to_string(result)));
}

std::shared_ptr<Instance> Instance::open() {
  static std::mutex mutex;
  static std::weak_ptr<Instance> opened;
  const std::lock_guard lock(mutex);
  std::shared_ptr<Instance> instance = opened.lock();
  if (instance == nullptr) {
    instance.reset(new Instance);
    opened = instance;
  }
  return instance;
}

Instance::Instance() {
  const PFN_vkGetInstanceProcAddr get = load();
  const auto version = reinterpret_cast<PFN_vkEnumerateInstanceVersion>(
      get(VK_NULL_HANDLE, "vkEnumerateInstanceVersion"));
  const auto create =
      reinterpret_cast<PFN_vkCreateInstance>(get(VK_NULL_HANDLE, "vkCreateInstance"));
  uint32_t found = VK_API_VERSION_1_0;
  if (version == nullptr || create == nullptr || version(&found) != VK_SUCCESS ||
      found < VK_API_VERSION_1_1) {
    throw DeviceError("Vulkan 1.1 is needed, this library has 1.0; update it");
  }
  VkApplicationInfo application{VK_STRUCTURE_TYPE_APPLICATION_INFO};
  application.pEngineName = "mbq";
  application.apiVersion = VK_API_VERSION_1_1;
  VkInstanceCreateInfo info{VK_STRUCTURE_TYPE_INSTANCE_CREATE_INFO};
  info.pApplicationInfo = &application;
  require(create(&info, nullptr, &handle_), "creating an instance");
#define MBQ_VULKAN_FIND(name) call_.name = reinterpret_cast<PFN_vk##name>(get(handle_, "vk" #name));
  MBQ_VULKAN_INSTANCE_FUNCTIONS(MBQ_VULKAN_FIND)
#undef MBQ_VULKAN_FIND
}

Instance::~Instance() { call_.DestroyInstance(handle_, nullptr); }

std::vector<VkPhysicalDevice> Instance::physical_devices() const {
  uint32_t count = 0;
  require(call_.EnumeratePhysicalDevices(handle_, &count, nullptr), "looking for devices");
  std::vector<VkPhysicalDevice> found(count);
  // Drivers may come or go between the two calls.
  const VkResult result = call_.EnumeratePhysicalDevices(handle_, &count, found.data());
  if (result != VK_INCOMPLETE) require(result, "looking for devices");
  found.resize(count);
  if (found.empty()) {
    throw DeviceError(
        "Vulkan finds no device; install its driver (on Debian or Ubuntu mesa-vulkan-drivers)");
  }
  return found;
}

}  // namespace mbq::vulkan
