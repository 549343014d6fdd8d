// What a convolution's output may be, with memory for it and a comparison of all of it.

#pragma once

#include <memory>

#include "check.h"
#include "expected.h"

namespace check {

struct OutputKind {
  const char* name;
  bool direct, stream, residual, relu;
  int code_outputs;
  bool in_place = false;  // the stream takes the bytes of the residual
};
inline constexpr OutputKind kOutputKinds[] = {
    {"codes directly", true, false, false, false, 0},
    {"stream", false, true, false, false, 0},
    {"stream with ReLU", false, true, false, true, 0},
    {"stream with residual and ReLU", false, true, true, true, 0},
    {"stream with residual, ReLU, one code output", false, true, true, true, 1},
    {"stream with residual, ReLU, two code outputs", false, true, true, true, 2},
    {"stream with two code outputs", false, true, false, false, 2},
    {"one code output with ReLU", false, false, false, true, 1},
    {"two code outputs with residual", false, false, true, false, 2},
    {"stream in place of the residual", false, true, true, true, 1, true},
};
inline constexpr int kOutputKindCount = static_cast<int>(std::size(kOutputKinds));

// A kind with scales, biases and a residual. Scales spread accumulators of size `typical` over the
// codes; some channels make exact halves, and if `special`, values that overflow or are no numbers.
class OutputCase {
 public:
  OutputCase(const mbq::ConvShape& shape, const OutputKind& kind, float typical, bool special,
             Random& random);

  // With fresh memory to write to.
  const mbq::LayerOutput& prepare(Random& random);
  const mbq::LayerOutput& layer() const { return output_; }

  std::string problem(const Result& expected) const;

  std::string describe() const { return kind_.name + std::string(special_ ? ", special" : ""); }

 private:
  void fill_stream();

  mbq::ConvShape shape_;
  OutputKind kind_;
  bool special_;
  Buffer<float> scale_, bias_, residual_, stream_;
  std::vector<std::unique_ptr<Image>> images_, before_;
  mbq::LayerOutput output_;
};

mbq::CodeOutput random_code_output(bool special, Random& random);

}  // namespace check
