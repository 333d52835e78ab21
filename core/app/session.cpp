#include "app/session.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <sched.h>

#include <cstdlib>

#include "base/check.h"
#include "model/adapter_files.h"
#include "model/model_files.h"
#include "plugin/host.h"

namespace dsengine {

void set_up_threads(int64_t threads) {
  if (threads <= 0) {
    cpu_set_t cpus;
    threads = sched_getaffinity(0, sizeof cpus, &cpus) == 0 ? CPU_COUNT(&cpus) : 1;
  }
  // MKL would otherwise take fewer threads when it sees fit, and sum in another order.
  setenv("MKL_DYNAMIC", "FALSE", 1);
  at::set_num_threads(int(threads));
  at::globalContext().setDeterministicAlgorithms(true, false);
  set_parallel_for([](int64_t begin, int64_t end, int64_t grain, void (*body)(void*, int64_t, int64_t), void* context) {
    at::parallel_for(begin, end, grain, [&](int64_t first, int64_t last) { body(context, first, last); });
  });
}

Session::Session(const std::vector<std::filesystem::path>& plugin_path, const std::vector<PluginFile>& files)
    : registry_(plugin_path, files), kernels_(registry_) {}

LoadedModel Session::load(const std::filesystem::path& directory, ModelKind kind, const std::string& dtype) const {
  DSE_CHECK_USER(std::filesystem::is_directory(directory), "--model: {} is not a directory", directory.string());
  LoadedModel loaded{Model::load(directory, registry_, kernels_, {.kind = kind}), std::nullopt, eos_ids(directory)};
  if (dtype == "bf16") {
    at::NoGradGuard no_grad;
    for (auto* unit : loaded.model.units()) unit->flat().copy_(unit->flat().to(at::kBFloat16));
  }
  if (Tokenizer::exists_in(directory) || Tokenizer::exists_in(base_directory(directory))) {
    loaded.text = TextModel::load(directory, directory);
    loaded.eos = loaded.text->eos;
  }
  return loaded;
}

}  // namespace dsengine
