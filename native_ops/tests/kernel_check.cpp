// Compares every kernel that this CPU runs with the layers written down plainly, bit for bit.
//
//   kernel_check [--isa TABLE] [--kernel PART_OF_NAME] [--seed N] [--quick] [--verbose]
//   kernel_check --list          what there is
//   kernel_check --self-test     with a wrong expectation: has to fail
//   kernel_check --time [--layer PART_OF_NAME] [--output direct|stream] [--cold]
//                                how fast they are on the layers of networks; cold: as within a
//                                frame, other data in the caches and packed weights in memory
//
// Exit code 1 if a kernel is wrong or never ran, 2 for bad arguments.

#include "check.h"

namespace {

int list(const check::Options& options) {
  using mbq::LayerKernels;
  const auto kernel = [](const LayerKernels& table, const auto& kernel, bool) {
    std::printf("%s %s\n", table.name, kernel.name);
  };
  check::for_kernels(options, &LayerKernels::conv, kernel);
  check::for_kernels(options, &LayerKernels::depthwise, kernel);
  check::for_kernels(options, &LayerKernels::stem, kernel);
  const auto function = [](const char* name) {
    return [name](const LayerKernels& table) { std::printf("%s %s\n", table.name, name); };
  };
  check::for_functions(options, &LayerKernels::stream, function("stream"));
  check::for_functions(options, &LayerKernels::pool_codes, function("pool_codes"));
  check::for_functions(options, &LayerKernels::head, function("head"));
  return 0;
}

int usage(const char* wrong) {
  std::fprintf(stderr,
               "kernel_check: %s\n"
               "usage: kernel_check [--isa TABLE] [--kernel PART_OF_NAME] [--seed N] [--quick]\n"
               "                    [--verbose] [--list | --self-test |\n"
               "                     --time [--layer PART_OF_NAME] [--output direct|stream] "
               "[--cold]]\n",
               wrong);
  return 2;
}

}  // namespace

int main(int count, char** arguments) {
  check::Options options;
  bool listing = false, timing = false;
  for (int i = 1; i < count; ++i) {
    const auto is = [&](const char* name) { return std::strcmp(arguments[i], name) == 0; };
    if (is("--quick")) {
      options.quick = true;
    } else if (is("--verbose")) {
      options.verbose = true;
    } else if (is("--self-test")) {
      options.self_test = true;
    } else if (is("--time")) {
      timing = true;
    } else if (is("--cold")) {
      options.cold = true;
    } else if (is("--list")) {
      listing = true;
    } else if (i + 1 < count && is("--isa")) {
      options.isa = arguments[++i];
    } else if (i + 1 < count && is("--kernel")) {
      options.kernel = arguments[++i];
    } else if (i + 1 < count && is("--output")) {
      options.output = arguments[++i];
      if (std::strcmp(options.output, "direct") != 0 &&
          std::strcmp(options.output, "stream") != 0) {
        return usage("--output is direct or stream");
      }
    } else if (i + 1 < count && is("--layer")) {
      options.layer = arguments[++i];
    } else if (i + 1 < count && is("--seed")) {
      options.seed = std::strtoull(arguments[++i], nullptr, 10);
    } else {
      return usage(arguments[i]);
    }
  }
  if (options.isa != nullptr) {
    bool known = false;
    for (auto table = mbq::available_layers(); *table; ++table) {
      known = known || std::strcmp((*table)->name, options.isa) == 0;
    }
    if (!known) return usage("no such table on this CPU");
  }
  if (listing) return list(options);
  if (timing) return check::time_kernels(options);

  check::Record record(options);
  check::check_convolutions(options, record);
  check::check_stems(options, record);
  check::check_streams(options, record);
  check::check_pools(options, record);
  check::check_heads(options, record);
  return record.finish() ? 0 : 1;
}
