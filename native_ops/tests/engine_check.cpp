// A level of a network on several threads, whether they share every layer or run branches side by
// side, against the same level on one thread; and the pool that they are in. Built with
// ThreadSanitizer it finds out what two threads do at once.
//
//   engine_check FILE...     each a plan and its constants, as tests/native_ops writes them

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <vector>

#include "../engine/engine.h"
#include "../runtime/thread_pool.h"

namespace {

// A file in memory: lengths are uint64, constants lie at multiples of 64 bytes.
class Level {
 public:
  explicit Level(const char* path) {
    std::ifstream file(path, std::ios::binary);
    contents_.assign(std::istreambuf_iterator<char>(file), {});
    plan_ = piece();
    while (at_ < contents_.size()) {
      const std::vector<char> bytes = piece();
      constants_.push_back(std::make_unique<mbq::AlignedMemory>(bytes.size()));
      std::memcpy(constants_.back()->data(), bytes.data(), bytes.size());
      sizes_.push_back(bytes.size());
    }
  }

  mbq::Engine engine() const {
    std::vector<mbq::Engine::Constant> constants;
    for (size_t i = 0; i < sizes_.size(); ++i) {
      constants.push_back({constants_[i]->data(), sizes_[i]});
    }
    return mbq::Engine(mbq::Plan::decode(plan_.data(), plan_.size()), std::move(constants));
  }

 private:
  std::vector<char> piece() {
    uint64_t size;
    if (contents_.size() - at_ < sizeof size) throw std::runtime_error("the file is cut short");
    std::memcpy(&size, contents_.data() + at_, sizeof size);
    at_ += sizeof size;
    if (contents_.size() - at_ < size) throw std::runtime_error("the file is cut short");
    at_ += size;
    return {contents_.data() + at_ - size, contents_.data() + at_};
  }

  std::vector<char> contents_, plan_;
  size_t at_ = 0;
  std::vector<std::unique_ptr<mbq::AlignedMemory>> constants_;
  std::vector<size_t> sizes_;
};

// Every piece of every job is done once, whoever does it.
bool pool_is_right(int threads) {
  mbq::ThreadPool pool(threads);
  std::vector<int> done(37);
  for (int job = 0; job < 3000; ++job) {
    if (job % 100 == 0) pool.rouse();
    const int count = job % static_cast<int>(done.size());
    const mbq::Parallel& parallel = pool.parallel();
    parallel.run(
        parallel.self, count,
        [](void* context, int, int begin, int end) {
          for (int i = begin; i < end; ++i) ++static_cast<int*>(context)[i];
        },
        done.data());
    for (int i = 0; i < static_cast<int>(done.size()); ++i) {
      if (done[i] != (i < count)) return false;
      done[i] = 0;
    }
  }
  return true;
}

using Logits = std::vector<float>;

Logits run(mbq::Engine& engine, const mbq::RunContext& context, bool* beside) {
  std::vector<uint8_t> image(engine.image_bytes());
  uint32_t random = 1;
  for (uint8_t& pixel : image) pixel = static_cast<uint8_t>((random = random * 1664525 + 1) >> 24);
  Logits logits(engine.classes());
  std::vector<mbq::LayerTime> layers;
  for (int round = 0; round < 3; ++round) {
    engine.run(context, image.data(), logits.data(), round == 1 ? &layers : nullptr);
  }
  for (const mbq::LayerTime& layer : layers) *beside |= layer.beside;
  return logits;
}

int check(const char* path) {
  const Level level(path);
  int wrong = 0;
  for (const auto* table = mbq::available_layers(); *table != nullptr; ++table) {
    bool beside = false;
    mbq::Engine single = level.engine();
    const Logits expected = run(single, {*table, &mbq::serial(), false}, &beside);
    for (const char* split : {"tiles", "branches"}) {
      setenv("EDGE_NATIVE_SPLIT", split, 1);
      for (const int threads : {2, 3}) {
        mbq::ThreadPool pool(threads);
        mbq::Engine engine = level.engine();
        beside = false;
        const Logits found = run(engine, {*table, &pool.parallel(), false}, &beside);
        const bool same =
            std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)) == 0;
        std::printf("%s %s, %d threads, %s: %s\n", path, (*table)->name, threads,
                    beside ? "branches" : "tiles", same ? "ok" : "WRONG");
        wrong += !same;
      }
    }
  }
  return wrong;
}

}  // namespace

int main(int count, char** paths) {
  int wrong = 0;
  for (const int threads : {1, 2, 3, 5}) {
    const bool right = pool_is_right(threads);
    std::printf("pool of %d: %s\n", threads, right ? "ok" : "WRONG");
    wrong += !right;
  }
  try {
    for (int i = 1; i < count; ++i) wrong += check(paths[i]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "engine_check: %s\n", error.what());
    return 2;
  }
  return wrong != 0;
}
