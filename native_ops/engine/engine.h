// Runs the plan of one level.
//
// Nothing is prepared before the first run: a level that is never used costs no memory. The first
// run measures which kernel is the fastest for each shape (once in a process), and prepares the
// weights of the branches that no other level has prepared yet. With several threads it also
// measures whether they had better share each layer or run branches side by side. Later runs
// allocate nothing.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "../kernels/layers.h"
#include "lanes.h"
#include "memory.h"
#include "plan.h"
#include "stopwatch.h"

namespace mbq {

// What a run needs beside its arguments.
struct RunContext {
  const LayerKernels* kernels;
  const Parallel* parallel;
  bool low_memory;  // only kernels that prepare no more bytes than the packed weights have
};

// A layer as it was last run with a profile.
struct LayerTime {
  int branch;                  // from 1; 0: of no single branch
  std::string layer;           // "conv3x3/2 28x28x128 -> 256"
  std::string kernel;          // its name, or the instruction set's
  double start, microseconds;  // since the run began
  int64_t macs;
  size_t weight_bytes;  // prepared; 0 where 2-bit weights are unpacked on the fly
  int threads = 1;      // that shared the layer
  bool beside = false;  // other branches ran at the same time
};

class Engine {
 public:
  struct Constant {
    const uint8_t* data;
    size_t size;
  };

  // constants: for each key of the plan; they outlive the engine. Throws std::runtime_error where
  // they do not fit the plan.
  Engine(Plan plan, std::vector<Constant> constants);

  // image: uint8 [height, width, 3] of the plan's input; logits: float32 [classes].
  // profile: filled with one entry for each layer, or null. One run at a time.
  void run(const RunContext& context, const uint8_t* image, float* logits,
           std::vector<LayerTime>* profile);

  size_t image_bytes() const;
  int classes() const { return plan_.layers.back().outputs; }

 private:
  // A layer with everything that does not change between runs.
  struct Step {
    const ConvKernel* conv = nullptr;
    const StemKernel* stem = nullptr;
    const PlanLayer* pool = nullptr;  // of a stem: the next layer, which it runs as well
    PreparedWeights weights;
    size_t scratch = 0;
    bool alone = false;  // on one thread, other branches on others
  };
  using Steps = std::vector<Step>;

  // Where a run reads and writes. scratch: of the thread that runs a layer alone, or of all.
  struct Buffers {
    uint8_t* arena;
    uint8_t* scratch;
    const uint8_t* image;
    float* logits;
  };

  // A run on its way. profile: one entry for each layer, or null.
  struct Run {
    const RunContext& context;
    const Steps& steps;
    Buffers buffers;
    LayerTime* profile;
    const Stopwatch& watch;
  };

  // A kernel that may run a layer, and whether a cache holds what the level prepares for it.
  struct Candidate {
    const ConvKernel* kernel;
    bool cached;
  };

  void prepare(const RunContext& context);
  Step prepare_layer(const RunContext& context, const PlanLayer& layer) const;
  Step prepare_conv(const RunContext& context, const PlanLayer& layer) const;
  Step prepare_stem(const RunContext& context, const PlanLayer& layer) const;
  Steps prepare_layers(const RunContext& context, Lanes* lanes) const;
  std::optional<bool> known_beside(const RunContext& context) const;
  bool measure_beside(const RunContext& context, const Steps& tiled, const Steps& beside,
                      const Lanes& lanes);
  size_t bytes_for(const Steps& steps, const Lanes* lanes) const;
  void use_places(const Places& places);
  size_t scratch_offset() const;
  const PlanLayer* only_reader_pools(const PlanLayer& stem) const;
  void check_weights(const PlanLayer& layer) const;
  size_t total_prepared(const ConvKernel& kernel) const;
  void read_constants() const;
  const ConvKernel* fastest_of(const RunContext& context, const PlanLayer& layer,
                               const std::vector<Candidate>& candidates) const;
  PreparedWeights weights_for(const PlanLayer& layer, const ConvKernel& kernel) const;

  void run_all(const Run& run, const Lanes* lanes) const;
  void run_layers(const Run& run, int begin, int end) const;
  void run_layer(const RunContext& context, const PlanLayer& layer, const Step& step,
                 const Buffers& buffers) const;
  LayerTime describe(const RunContext& context, const PlanLayer& layer, const Step& step) const;
  ConvCall conv_call(const PlanLayer& layer, const Step& step, const Buffers& buffers) const;
  StreamCall stream_call(const PlanLayer& layer, uint8_t* arena) const;
  LayerOutput output_of(const PlanLayer& layer, uint8_t* arena) const;
  CodeImage code_image(int value, uint8_t* arena) const;
  float* stream(int value, uint8_t* arena) const;
  const uint8_t* payload(const PlanLayer& layer) const;
  StemWeights stem_weights(const PlanLayer& layer) const;

  Plan plan_;
  std::vector<Constant> constants_;
  Places planned_;  // for one layer after the other
  Steps steps_;
  std::optional<Lanes> lanes_;  // where branches run side by side
  RunContext prepared_for_{};
  int prepared_threads_ = 0;
  size_t workspace_bytes_ = 0;
  Workspace::Handle reservation_;
};

}  // namespace mbq
