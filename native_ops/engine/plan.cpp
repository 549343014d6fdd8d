#include "plan.h"

#include <cstring>
#include <stdexcept>
#include <type_traits>

namespace mbq {
namespace {

constexpr char kMagic[8] = {'M', 'B', 'Q', 'P', 'L', 'A', 'N', '\0'};
constexpr uint32_t kVersion = 1;
constexpr size_t kKeyBytes = 32, kArenaAlignment = 64;
// Keep every product of sizes far from overflow.
constexpr int kMaxSize = 1 << 16, kMaxSide = 15, kMaxStreams = 16;
constexpr size_t kMaxElements = size_t{1} << 31;

void require(bool condition, const char* what) {
  if (!condition) throw std::runtime_error(std::string("the plan of a level ") + what);
}

class Reader {
 public:
  Reader(const void* bytes, size_t size)
      : at_(static_cast<const uint8_t*>(bytes)), end_(at_ + size) {}

  template <typename T>
  T read() {
    static_assert(std::is_trivially_copyable_v<T>);
    require(static_cast<size_t>(end_ - at_) >= sizeof(T), "is cut short");
    T value;
    std::memcpy(&value, at_, sizeof value);
    at_ += sizeof value;
    return value;
  }

  // A count of elements that are at least `size` bytes each.
  size_t count(size_t size) {
    const uint32_t count = read<uint32_t>();
    require(count <= static_cast<size_t>(end_ - at_) / size, "is cut short");
    return count;
  }

  void finish() const { require(at_ == end_, "has bytes left over"); }

 private:
  const uint8_t* at_;
  const uint8_t* end_;
};

struct FileValue {
  int32_t kind, height, width, channels, border, reserved;
  uint64_t offset;
};
static_assert(sizeof(FileValue) == 32);
static_assert(sizeof(PlanLayer) == 24 * 4 + kMaxCodeOutputs * 20);

bool within(int value, int low, int high) { return low <= value && value <= high; }

PlanValue read_value(Reader& reader) {
  const auto file = reader.read<FileValue>();
  require(within(file.kind, 0, 3) && within(file.height, 1, kMaxSize) &&
              within(file.width, 1, kMaxSize) && within(file.channels, 1, kMaxSize) &&
              within(file.border, 0, kMaxSide),
          "has a value out of range");
  const PlanValue value{
      static_cast<ValueKind>(file.kind), file.height, file.width, file.channels, file.border,
      static_cast<size_t>(file.offset)};
  require((file.height + 2.0 * file.border + kCodeSlackRows) * (file.width + 2.0 * file.border) *
                  (file.channels + 3.0) <
              static_cast<double>(kMaxElements),
          "has a value that is too large");
  return value;
}

// What the layers of a plan have to fulfil.
class Check {
 public:
  explicit Check(const Plan& plan) : plan_(plan), written_(plan.values.size(), false) {
    for (const PlanValue& value : plan.values) {
      require(value.offset % kArenaAlignment == 0 && value.offset <= plan.arena_bytes &&
                  value.bytes() <= plan.arena_bytes - value.offset,
              "places a value outside its arena");
    }
    for (size_t i = 0; i < plan.values.size(); ++i) {
      written_[i] = plan.values[i].kind == ValueKind::kImage;
    }
  }

  void layer(const PlanLayer& layer) {
    require(within(static_cast<int>(layer.kind), 0, 5) && within(layer.outputs, 1, kMaxSize) &&
                within(layer.code_outputs, 0, kMaxCodeOutputs),
            "has a layer out of range");
    if (layer.kind == LayerKind::kHead) return head(layer);
    const PlanValue& input = read(layer.input);
    int height = input.height, width = input.width;
    switch (layer.kind) {
      case LayerKind::kStem:
      case LayerKind::kConv:
      case LayerKind::kDepthwise: {
        const bool stem = layer.kind == LayerKind::kStem;
        require(input.kind == (stem ? ValueKind::kImage : ValueKind::kCodes),
                "has a convolution of the wrong input");
        require(within(layer.kernel_height, 1, kMaxSide) &&
                    within(layer.kernel_width, 1, kMaxSide) && within(layer.stride, 1, 16) &&
                    within(layer.pad, 0, stem ? kMaxSide : input.border) &&
                    within(layer.highest, 0, 255),
                "has a convolution out of range");
        require(height + 2 * layer.pad >= layer.kernel_height &&
                    width + 2 * layer.pad >= layer.kernel_width,
                "has a kernel larger than its input");
        require(layer.affine >= 0 &&
                    static_cast<size_t>(layer.affine) + 2 * layer.outputs <= plan_.floats.size(),
                "has scales outside its floats");
        key(layer.weight);
        if (stem) key(layer.second);
        const ConvShape shape = plan_.shape(layer);
        height = shape.out_height();
        width = shape.out_width();
        break;
      }
      case LayerKind::kFork:
      case LayerKind::kPoolCodes: {
        const bool pools = layer.pool_kernel != 0;
        require(
            input.kind == (layer.kind == LayerKind::kFork ? ValueKind::kStream : ValueKind::kCodes),
            "has a pool of the wrong input");
        require(pools || layer.kind == LayerKind::kFork, "has a pool without a window");
        if (!pools) break;
        require(within(layer.pool_kernel, 1, kMaxSide) && within(layer.pool_stride, 1, 16) &&
                    layer.pool_pad >= 0 && 2 * layer.pool_pad <= layer.pool_kernel &&
                    height + 2 * layer.pool_pad >= layer.pool_kernel &&
                    width + 2 * layer.pool_pad >= layer.pool_kernel,
                "has a pool out of range");
        height = (height + 2 * layer.pool_pad - layer.pool_kernel) / layer.pool_stride + 1;
        width = (width + 2 * layer.pool_pad - layer.pool_kernel) / layer.pool_stride + 1;
        break;
      }
      case LayerKind::kHead:
        break;
    }
    if (layer.residual != kNone) {
      const PlanValue& residual = read(layer.residual);
      require(residual.kind == ValueKind::kStream && residual.height == height &&
                  residual.width == width && residual.channels == layer.outputs,
              "adds a residual of another shape");
    }
    const bool direct = layer.direct() || layer.kind == LayerKind::kPoolCodes;
    require(direct ? layer.code_outputs == 1 && layer.stream == kNone && layer.residual == kNone
                   : layer.code_outputs > 0 || layer.stream != kNone,
            "has a layer without a fitting result");
    require(layer.kind != LayerKind::kDepthwise || layer.outputs == input.channels,
            "has a depthwise convolution of other channels");
    require(layer.kind != LayerKind::kPoolCodes || layer.outputs == input.channels,
            "has a pool of other channels");
    require(layer.kind != LayerKind::kStem || !direct, "has a stem that writes codes only");
    if (layer.stream != kNone) {
      write(layer.stream, ValueKind::kStream, height, width, layer.outputs);
    }
    for (int i = 0; i < layer.code_outputs; ++i) {
      const PlanCodes& codes = layer.codes[i];
      require(0 <= codes.lowest && codes.lowest <= codes.highest && codes.highest <= 255,
              "has codes out of range");
      write(codes.value, ValueKind::kCodes, height, width, layer.outputs);
    }
  }

 private:
  const PlanValue& read(int index) const {
    require(index >= 0 && static_cast<size_t>(index) < plan_.values.size() && written_[index],
            "reads a value that nothing has written");
    return plan_.values[index];
  }

  void write(int index, ValueKind kind, int height, int width, int channels) {
    require(index >= 0 && static_cast<size_t>(index) < plan_.values.size(),
            "writes a value that it does not have");
    const PlanValue& value = plan_.values[index];
    require(value.kind == kind && value.height == height && value.width == width &&
                value.channels == channels,
            "writes a value of another shape");
    written_[index] = true;
  }

  void key(int index) const {
    require(index >= 0 && static_cast<size_t>(index) < plan_.keys.size(),
            "names a constant that it does not have");
  }

  void head(const PlanLayer& layer) {
    require(within(layer.inputs, 1, kMaxStreams) && layer.first_input >= 0 &&
                static_cast<size_t>(layer.first_input) + layer.inputs <= plan_.lists.size(),
            "joins too few or too many streams");
    const PlanValue& first = read(plan_.lists[layer.first_input]);
    for (int i = 0; i < layer.inputs; ++i) {
      const PlanValue& value = read(plan_.lists[layer.first_input + i]);
      require(value.kind == ValueKind::kStream && value.height == first.height &&
                  value.width == first.width && value.channels == first.channels,
              "joins streams of different shapes");
    }
    key(layer.weight);
    key(layer.second);
    write(layer.stream, ValueKind::kLogits, 1, 1, layer.outputs);
  }

  const Plan& plan_;
  std::vector<bool> written_;
};

}  // namespace

size_t PlanValue::bytes() const {
  size_t size = 0;
  if (kind == ValueKind::kStream) {
    size = static_cast<size_t>(height) * width * channels * sizeof(float);
  } else if (kind == ValueKind::kCodes) {
    size = (height + 2 * static_cast<size_t>(border) + kCodeSlackRows) * row() + kCodeSlackBytes;
  }
  return (size + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

ConvShape Plan::shape(const PlanLayer& layer) const {
  const PlanValue& input = values[layer.input];
  return {input.height,        input.width,        input.channels, layer.outputs,
          layer.kernel_height, layer.kernel_width, layer.stride,   layer.pad};
}

Plan Plan::decode(const void* bytes, size_t size) {
  Reader reader(bytes, size);
  char magic[sizeof kMagic];
  for (char& c : magic) c = reader.read<char>();
  require(std::memcmp(magic, kMagic, sizeof kMagic) == 0, "has a wrong magic");
  require(reader.read<uint32_t>() == kVersion, "has a version that this build does not read");
  Plan plan{};
  const size_t values = reader.count(sizeof(FileValue)), layers = reader.count(sizeof(PlanLayer));
  const size_t keys = reader.count(kKeyBytes), lists = reader.count(4), floats = reader.count(4);
  const uint64_t arena = reader.read<uint64_t>();
  require(arena < kMaxElements, "takes too large an arena");
  plan.arena_bytes = static_cast<size_t>(arena);
  for (size_t i = 0; i < values; ++i) plan.values.push_back(read_value(reader));
  for (size_t i = 0; i < layers; ++i) plan.layers.push_back(reader.read<PlanLayer>());
  for (size_t i = 0; i < keys; ++i) {
    struct Key {
      char text[kKeyBytes];
    };
    const auto key = reader.read<Key>();
    plan.keys.emplace_back(key.text, strnlen(key.text, kKeyBytes));
  }
  for (size_t i = 0; i < lists; ++i) plan.lists.push_back(reader.read<int32_t>());
  for (size_t i = 0; i < floats; ++i) plan.floats.push_back(reader.read<float>());
  reader.finish();
  Check check(plan);
  for (const PlanLayer& layer : plan.layers) check.layer(layer);
  require(!plan.layers.empty() && plan.layers.back().kind == LayerKind::kHead,
          "does not end with a head");
  return plan;
}

PoolShape Plan::pool(const PlanLayer& layer) const {
  const PlanValue& input = values[layer.input];
  return {input.height,      input.width,       input.channels,
          layer.pool_kernel, layer.pool_stride, layer.pool_pad};
}

}  // namespace mbq
