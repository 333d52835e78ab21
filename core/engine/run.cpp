// Whole runs: what `dsengine run` and `dsengine --plugin` do.
#include <ATen/Parallel.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <csignal>
#include <iostream>

#include "comm/world.h"
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
namespace {

RunEnd run_on(dsengine::Communicator& ranks, const Run& run) {
  const bool first = ranks.rank() == 0;
  const dsengine::StopSignal stop;
  const auto file = run.config.empty() ? dsengine::built_in_config() : run.config;
  dsengine::RunConfig config = dsengine::load_config(file, run.sets);
  ranks.set_deadline(config.collective_timeout);
  dsengine::check_alike(ranks, "settings", config.resolved);
  const dsengine::Neighbours near = dsengine::neighbours_of(ranks);
  const bool share = config.threads == 0 && ranks.size() > 1;
  dsengine::set_up_threads(share ? std::max<int64_t>(1, int64_t(near.processors)) : config.threads);
  std::vector<std::filesystem::path> path = run.plugin_path;
  path.insert(path.end(), config.plugin_path.begin(), config.plugin_path.end());
  const dsengine::Session session(path, config.plugins, config.device);
  const dsengine::Device& device = session.kernels().device();
  // memory_limit is each rank's; what the machine has they share.
  const int64_t memory = dsengine::memory_limit(config, device) / (config.memory_limit > 0 ? 1 : near.ranks);
  const dsengine::LimitScope limit(dsengine::Ledger::host(), device.is_apart() ? 0 : memory);
  const dsengine::CardLimit card_limit(device.where().is_cuda() ? dsengine::opened_card() : nullptr, memory);
  const std::string stage =
      run.algorithm.empty() ? "" : dsengine::select_algorithm(config, session.registry(), run.algorithm);
  dsengine::set_up_logging({.level = config.log_level, .file = {}, .quiet = !first});
  dsengine::Pipeline pipeline(config, session.registry(), session.kernels(), stop,
                              run.accept_changes ? dsengine::Changes::accepted : dsengine::Changes::refused, stage,
                              ranks);
  if (first) dsengine::set_up_logging({.level = config.log_level, .file = config.output_dir / "log.txt"});
  spdlog::info("run config={} output_dir={} seed={}", file.string(), config.output_dir.string(), config.seed);
  if (ranks.size() > 1)
    spdlog::info("ranks size={} threads={} on_this_machine={}", ranks.size(), at::get_num_threads(), near.ranks);
  if (first) std::cerr << config.resolved;
  if (!(stage.empty() ? pipeline.run_all() : pipeline.run_until(stage))) {
    double signal[] = {double(stop.signal())};  // which may have come to one rank alone
    ranks.max(signal);
    return {.signal = int(signal[0])};
  }
  return {.model = pipeline.model_of(stage.empty() ? config.stages.back().name : stage)};
}

}  // namespace

namespace {

std::unique_ptr<dsengine::Communicator> opened_world() {
  try {
    return dsengine::open_world();
  } catch (const std::exception&) {
    if (dsengine::told_by_rank_0()) throw dsengine::ToldElsewhere();
    throw;
  }
}

}  // namespace

RunEnd run(const Run& run) {
  const auto ranks = opened_world();
  // mpirun hands it on as long as one of them runs; one that has ended waits for the others.
  if (ranks->size() > 1) std::signal(SIGUSR1, SIG_IGN);
  if (ranks->rank() != 0) dsengine::set_up_logging({.level = dsengine::LogLevel::info, .file = {}, .quiet = true});
  try {
    return run_on(*ranks, run);
  } catch (const dsengine::RankLost& error) {
    if (ranks->leave(error.what(), false)) throw;
  } catch (const dsengine::UnequalCalls& error) {  // another's error may be the cause
    if (ranks->leave(error.what(), false)) throw;
  } catch (const std::exception& error) {
    if (ranks->leave(error.what(), true)) throw;
  }
  throw dsengine::ToldElsewhere();
}

}  // namespace dse
