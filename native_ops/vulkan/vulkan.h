// The engine's levels on a GPU, through Vulkan compute. This header needs none of Vulkan's own, and
// its functions are there in every build: where there is no Vulkan, or the build has no shaders,
// they say so.

#pragma once

#include <cstdint>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "../engine/engine.h"

namespace mbq::vulkan {

// The GPU cannot be used, or no longer: no Vulkan, no such device, no memory, lost, too slow to
// answer. What the CPU could run nevertheless.
class DeviceError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A device of this machine, whether it can run levels or not.
struct DeviceDescription {
  int index;  // as in vulkan:N
  std::string name, driver, version;
  bool software;        // the CPU pretends to be a GPU
  bool packed_product;  // multiplies four bytes at once
  bool clock;           // can measure which shaders are the fastest
  std::string problem;  // why it cannot run levels; empty if it can
};

// Throws DeviceError where there is no Vulkan or no device.
std::vector<DeviceDescription> devices();

// A device with everything that programs of one process share on it.
class Device;

inline constexpr int kFirstUsable = -1;

// The device of that index, the same one for everybody who holds it. Throws DeviceError.
std::shared_ptr<Device> open_device(int index);

// Bytes and times of a level so far.
struct Statistics {
  uint64_t uploaded_bytes;  // to the device, by all levels that share it: weights, scales, biases
  uint64_t device_bytes;    // held there now, likewise
  uint64_t frames, submits;
  double host_microseconds;    // of the last frame, without waiting for the device
  double fence_microseconds;   // of the last frame, waiting
  double device_microseconds;  // of the last frame, by the device's own clock; 0 where it has none
};

// One dispatch of a level: what it does beside the least that its layer needs.
struct DispatchSize {
  std::string layer, shader;
  std::string tile;          // of a convolution: pixels by outputs of an invocation
  std::string chosen;        // of a convolution: why this shader and tile
  uint64_t multiplications;  // of numbers, however many an instruction multiplies
  uint64_t invocations;
  uint64_t read_bytes, written_bytes;  // that invocations ask for, from caches or memory
  uint64_t least_bytes;                // every operand read, every result written once
  bool waits;                          // for those before it
};

// One level on a device. Like an Engine, one run at a time.
class Level {
 public:
  virtual ~Level() = default;

  // image, logits, profile: as for Engine::run. Throws DeviceError if the device fails.
  virtual void run(const uint8_t* image, float* logits, std::vector<LayerTime>* profile) = 0;

  virtual Statistics statistics() const = 0;
  virtual const std::vector<DispatchSize>& dispatches() const = 0;

  // What a value of the plan holds after a run, if no later one took its place: float32 [height,
  // width, channels], or codes with channels padded to 4. For tests.
  virtual std::vector<uint8_t> read(int value) const = 0;
};

// Uploads what no other level has uploaded yet and records the frame. The plan and the constants
// were checked by an Engine; they are not needed afterwards. low_memory: weights stay packed.
// Throws DeviceError.
std::unique_ptr<Level> make_level(std::shared_ptr<Device> device, const Plan& plan,
                                  const std::vector<Engine::Constant>& constants, bool low_memory);

// Name and SPIR-V of every shader of this build.
struct ShaderCode {
  const char* name;
  const uint32_t* words;
  size_t bytes;
};
std::vector<ShaderCode> shader_code();

}  // namespace mbq::vulkan
