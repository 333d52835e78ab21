// Whole runs: what `dsengine run` and `dsengine --plugin` do.
#include <spdlog/spdlog.h>

#include <iostream>

#include "device/cuda.h"
#include "engine/engine.h"
#include "engine/session.h"
#include "memory/card_memory.h"
#include "rl/pipeline.h"
#include "rl/plan_search.h"
#include "run/config_reader.h"
#include "run/logging.h"
#include "run/stop_signal.h"

namespace dse {

RunEnd run(const Run& run) {
  const dsengine::StopSignal stop;
  const auto file = run.config.empty() ? dsengine::built_in_config() : run.config;
  dsengine::RunConfig config = dsengine::load_config(file, run.sets);
  dsengine::set_up_threads(config.threads);
  std::vector<std::filesystem::path> path = run.plugin_path;
  path.insert(path.end(), config.plugin_path.begin(), config.plugin_path.end());
  const dsengine::Session session(path, config.plugins, config.device);
  const dsengine::Device& device = session.kernels().device();
  const dsengine::LimitScope limit(dsengine::Ledger::host(),
                                   device.is_apart() ? 0 : dsengine::memory_limit(config, device));
  const dsengine::CardLimit card_limit(device.where().is_cuda() ? dsengine::opened_card() : nullptr,
                                       dsengine::memory_limit(config, device));
  const std::string stage =
      run.algorithm.empty() ? "" : dsengine::select_algorithm(config, session.registry(), run.algorithm);
  dsengine::set_up_logging({.level = config.log_level, .file = {}});
  dsengine::Pipeline pipeline(config, session.registry(), session.kernels(), stop,
                              run.accept_changes ? dsengine::Changes::accepted : dsengine::Changes::refused, stage);
  dsengine::set_up_logging({.level = config.log_level, .file = config.output_dir / "log.txt"});
  spdlog::info("run config={} output_dir={} seed={}", file.string(), config.output_dir.string(), config.seed);
  std::cerr << config.resolved;
  if (!(stage.empty() ? pipeline.run_all() : pipeline.run_until(stage))) return {.signal = stop.signal()};
  return {.model = pipeline.model_of(stage.empty() ? config.stages.back().name : stage)};
}

}  // namespace dse
