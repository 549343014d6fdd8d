#include "output_case.h"

#include <limits>

namespace check {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();
constexpr float kNoNumber = std::numeric_limits<float>::quiet_NaN();
constexpr float kSpecial[] = {kNoNumber, kInfinity, -kInfinity, 3e38f, -3e38f,
                              0.0f,      -0.0f,     1e-41f,     1e30f, -1e12f};
constexpr int kHighest[] = {1, 3, 7, 15, 63, 255};

size_t elements(const mbq::ConvShape& shape) {
  return static_cast<size_t>(shape.out_height()) * shape.out_width() * shape.outputs;
}

}  // namespace

mbq::CodeOutput random_code_output(bool special, Random& random) {
  mbq::CodeOutput output{};
  output.highest = random.pick(kHighest);
  output.lowest = random.one_in(3) ? random.between(0, output.highest) : 0;
  output.scale = random.real(-1.0f, 2.0f) * static_cast<float>(output.highest);
  output.offset = random.real(-0.5f, 0.5f) * static_cast<float>(output.highest);
  if (random.one_in(4)) {
    output.scale = static_cast<float>(output.highest) * 0.5f;
    output.offset = 0.5f;
  }
  if (special && random.one_in(2)) {
    (random.one_in(2) ? output.scale : output.offset) = random.pick(kSpecial);
  }
  return output;
}

OutputCase::OutputCase(const mbq::ConvShape& shape, const OutputKind& kind, float typical,
                       bool special, Random& random)
    : shape_(shape),
      kind_(kind),
      special_(special),
      scale_(shape.outputs, sizeof(float)),
      bias_(shape.outputs, sizeof(float)),
      residual_(kind.residual ? elements(shape) : 0, sizeof(float)),
      stream_(kind.stream ? elements(shape) : 0, sizeof(float)),
      output_{} {
  const int code_images = kind.direct ? 1 : kind.code_outputs;
  for (int k = 0; k < code_images; ++k) output_.codes[k] = random_code_output(special, random);
  // Streams are of the order of 1, direct codes of their range.
  const float range = kind.direct ? static_cast<float>(output_.codes[0].highest) : 1.0f;
  for (int o = 0; o < shape.outputs; ++o) {
    scale_[o] = random.real(-1.0f, 2.0f) * range / typical;
    bias_[o] = random.real(-0.5f, 1.0f) * range;
    if (random.one_in(8)) {
      scale_[o] = random.one_in(2) ? 0.5f : -0.25f;
      bias_[o] = random.one_in(2) ? 0.0f : 0.5f;
    }
    if (special && random.one_in(3)) {
      (random.one_in(2) ? scale_[o] : bias_[o]) = random.pick(kSpecial);
    }
  }
  for (size_t i = 0; i < residual_.size(); ++i) {
    residual_[i] = random.one_in(5) ? 0.0f : random.real(0.0f, 2.0f);
    if (special && random.one_in(20)) residual_[i] = random.pick(kSpecial);
  }
  fill_stream();
  for (int k = 0; k < code_images; ++k) {
    const int border = random.between(0, 3);
    const size_t more = random.one_in(3) ? 4 * random.between(1, 5) : 0;
    const size_t gap = random.one_in(3) ? 4 * random.between(1, 20) : 0;
    for (auto* images : {&images_, &before_}) {
      images->push_back(std::make_unique<Image>(
          Image::kOutput, shape.out_height(), shape.out_width(), shape.outputs, border, more, gap));
    }
    output_.codes[k].image = images_[k]->view();
  }
  output_.scale = scale_.data();
  output_.bias = bias_.data();
  output_.direct = kind.direct;
  output_.relu = kind.relu;
  output_.stream = kind.stream ? stream_.data() : nullptr;
  output_.residual = kind.in_place ? output_.stream : kind.residual ? residual_.data() : nullptr;
  output_.code_outputs = kind.code_outputs;
}

const mbq::LayerOutput& OutputCase::prepare(Random& random) {
  for (size_t k = 0; k < images_.size(); ++k) {
    images_[k]->set_output(random);
    before_[k]->copy_from(*images_[k]);
  }
  fill_stream();
  return output_;
}

void OutputCase::fill_stream() {
  for (size_t i = 0; i < stream_.size(); ++i) {
    stream_[i] = kind_.in_place ? residual_[i] : -12345.0f;
  }
}

std::string OutputCase::problem(const Result& expected) const {
  if (!stream_.guards_intact()) return "wrote outside the stream";
  if (!scale_.guards_intact() || !bias_.guards_intact() || !residual_.guards_intact()) {
    return "wrote around scale, bias or residual";
  }
  if (kind_.stream) {
    std::string text = difference(stream_.data(), expected.stream, "stream");
    if (!text.empty()) return text;
  }
  for (size_t k = 0; k < images_.size(); ++k) {
    before_[k]->write(expected.codes[k]);
    std::string text = images_[k]->difference(*before_[k]);
    if (!text.empty()) return "codes " + std::to_string(k) + ": " + text;
  }
  return {};
}

}  // namespace check
