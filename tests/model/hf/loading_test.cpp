// Loading takes no more anonymous memory than the model it makes.
#include <gtest/gtest.h>
#include <malloc.h>

#include <atomic>
#include <fstream>
#include <thread>

#include "model/golden_models.h"
#include "model/hf/save.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

int64_t anonymous_bytes() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);)
    if (line.starts_with("RssAnon:")) return std::stoll(line.substr(8)) * 1024;
  return -1;
}

// The most that the process had of it while `work` ran, above what it had before.
template <class F>
int64_t peak_of(F&& work) {
  malloc_trim(0);  // what earlier work has freed would serve this one
  const int64_t before = anonymous_bytes();
  std::atomic<bool> done = false;
  int64_t peak = before;
  std::thread watch([&] {
    while (!done) {
      peak = std::max(peak, anonymous_bytes());
      std::this_thread::sleep_for(std::chrono::microseconds(200));
    }
  });
  work();
  done = true;
  watch.join();
  return std::max(peak, anonymous_bytes()) - before;  // on a busy machine the watch may have slept through the end
}

// A golden model's family in a size at which its weights count; in the directory as `dtype`.
void check_peak(const char* name, Dtype dtype, const Json& sizes) {
  Json config = read_json(golden(name) / "config.json");
  config.update(sizes);
  const fs::path directory = fs::path(DSE_BINARY_DIR) / "tests/loading" / name;
  fs::remove_all(directory);
  fs::create_directories(directory);
  int64_t bytes = 0;
  {
    const Model model = create_model(config, "config.json", built_plugins(), built_kernels(), {});
    save_model(model, directory, {}, {.dtype = dtype});
    bytes = 4 * model.parameter_count();
  }
  std::optional<Model> model;
  const int64_t peak = peak_of([&] { model = golden_model(directory); });
  EXPECT_GT(bytes, 60'000'000) << name;
  EXPECT_GT(peak, bytes * 9 / 10) << name;  // it is seen at all
  EXPECT_LE(peak, bytes * 11 / 10) << name;
  fs::remove_all(directory);
}

TEST(Loading, PeaksAtTheModelsSize) {
#ifdef __SANITIZE_ADDRESS__
  GTEST_SKIP() << "NOT TESTED: AddressSanitizer's own memory counts";
#endif
  const Json llama{{"hidden_size", 512}, {"intermediate_size", 2048}, {"head_dim", 128}, {"vocab_size", 8000}};
  check_peak("llama_gqa", Dtype::F32, llama);
  check_peak("llama_gqa", Dtype::BF16, llama);
  check_peak("gpt2", Dtype::F32, {{"n_embd", 768}, {"n_inner", 3072}, {"vocab_size", 24000}});  // transposed, fused
}

}  // namespace
}  // namespace dsengine
