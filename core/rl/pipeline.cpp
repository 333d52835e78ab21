#include "rl/pipeline.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/check.h"
#include "base/memory_size.h"
#include "base/regular_file.h"
#include "rl/config_checks.h"
#include "rl/fingerprint.h"
#include "rl/generation_memory.h"
#include "rl/plan_search.h"
#include "run/config_print.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

// The folders of a stage's models, by role; those that there are.
std::vector<std::pair<std::string, fs::path>> models_of(const StageInputs& inputs) {
  std::vector<std::pair<std::string, fs::path>> models;
  const auto add = [&](const std::string& role, const fs::path& path) {
    if (!path.empty()) models.emplace_back(role, path);
  };
  for (const auto& entry : kRoles) add(entry.title, inputs.of(entry.bit));
  for (size_t i = 1; i < inputs.rewards.size(); ++i) add(fmt::format("reward model {}", i + 1), inputs.rewards[i]);
  return models;
}

}  // namespace

Pipeline::Pipeline(const RunConfig& config, const PluginRegistry& registry, const Kernels& kernels,
                   const StopSignal& stop, Changes changes, const std::string& last, Communicator& ranks)
    : config_(config), registry_(registry), models_(config, registry), kernels_(kernels), stop_(stop), ranks_(ranks) {
  DSE_CHECK_USER(!config.stages.empty(), "the configuration has no [[stage]]");
  ranks_.together([&] { check_stages(changes, last); });
  ranks_.zero_first([&] { directory_.emplace(config, changes, ranks_.rank() == 0); });
}

void Pipeline::check_stages(Changes changes, const std::string& last) {
  std::vector<size_t> open;
  std::vector<fs::path> done;
  for (size_t i = 0; i < config_.stages.size(); ++i) {
    const fs::path folder = config_.output_dir / config_.stages[i].name;
    if (fs::exists(folder / "done.json"))
      done.push_back(folder);
    else
      open.push_back(i);
  }
  for (const size_t i : open) {
    check_stage(config_, i, registry_);
    check_weight_format(config_.stages[i].rollout.weights, compute_type(config_, kernels_));
  }
  try {
    InputCheck check(config_, registry_, stop_, kernels_.on_card(), ranks_.size());
    if (kernels_.device().is_apart()) check.set_host_apart();
    const auto end = std::ranges::find(config_.stages, last, &StageConfig::name);  // none: all
    for (const size_t i : open) {
      if (stop_.requested()) break;
      check.stage(i, needs_of(registry_, config_.stages[i]), models_.inputs_of(i));
      if (end - config_.stages.begin() >= int64_t(i)) check_memory(check, config_.stages[i]);
    }
  } catch (const UserError&) {
    // What an earlier stage left may have been changed since: that is the reason, then.
    for (const auto& folder : done)
      if (const auto what = changed_output(folder); what && changes == Changes::refused) throw UserError(*what);
    throw;
  }
}

void Pipeline::check_memory(InputCheck& check, const StageConfig& stage) const {
  StagePlan plan;
  try {
    plan = check.plan(stage);
  } catch (const ReadError&) {
    throw;
  } catch (const SettingError&) {
    throw;
  } catch (const fs::filesystem_error&) {
    throw;
  } catch (const std::exception& e) {  // whatever is wrong is the run's to say: that it cannot be foretold hinders none
    spdlog::warn("plan stage={} failed=\"{}\" note=\"its memory is not known before it runs\"", stage.name, e.what());
    return;
  }
  const int64_t set = Ledger::host().limit(), limit = set > 0 ? set : memory_limit(config_, kernels_.device());
  for (const auto& line : plan_lines(plan)) spdlog::debug("{}", line);
  const int64_t host = memory_left();
  DSE_CHECK_USER(
      !plan.host_apart || plan.offloaded <= host,
      "stage '{}' would keep {} in the host's memory (offload.*), of which {} are free: offload less, or take "
      "a smaller model",
      plan.stage, bytes_text(uint64_t(plan.offloaded)), bytes_text(uint64_t(host)));
  if (plan.peak() <= limit) return;
  for (const auto& line : plan_lines(plan))
    if (ranks_.rank() == 0) spdlog::error("{}", line);
  throw UserError(too_large(plan, limit, way_to_fit(check, stage, plan, limit)));
}

Json Pipeline::inherited_fingerprints(const StageInputs& inputs) const {
  Json all = Json::object();
  for (const auto& [role, path] : models_of(inputs))
    if (const auto* maker = models_.maker_of(path))
      all[role] = model_fingerprint(
          path, directory_->open_stage(config_, *maker).outputs().value(path.filename().string(), Json::object()));
  return all;
}

Json Pipeline::fingerprints_of(size_t index, const StageInputs& inputs) const {
  const auto& stage = config_.stages[index];
  const auto models = models_of(inputs);
  std::set<const StageConfig*> makers;
  for (const auto& [_, path] : models)
    if (const auto* maker = models_.maker_of(path); maker && makers.insert(maker).second)
      directory_->open_stage(config_, *maker).check_outputs();
  Json all = inherited_fingerprints(inputs);
  std::map<fs::path, Json> known;
  for (const auto& [role, path] : models) {
    if (all.contains(role)) continue;
    const bool drawn = inputs.drawn.contains(path);
    if (!known.contains(path)) known[path] = drawn ? text_fingerprint(path) : model_fingerprint(path);
    all[role] = known[path];
  }
  all["tokenizer"] = text_fingerprint(inputs.tokenizer);
  const auto add_plugin = [&](uint32_t kind, const std::string& name) {
    const Item& item = registry_.find(kind, name);
    all["plugin " + item.name] = plugin_fingerprint(item);
  };
  add_plugin(DSE_ALGORITHM, stage.algorithm);
  for (const auto* sources : {&stage.data.sources, &stage.data.heldout, &stage.ptx.sources})
    for (const auto& source : *sources) add_plugin(DSE_DATASET, source.reader);
  if (needs_of(registry_, stage).source == DSE_SOURCE_ROLLOUT)
    for (const auto& reward : stage.reward_sources()) add_plugin(DSE_REWARD_ITEM, reward.plugin);
  return all;
}

bool Pipeline::has_length(const StageConfig& stage, const Json& summary) const {
  if (stage.max_steps > 0) return summary.value("steps", int64_t(0)) == stage.max_steps;
  return summary.value("max_steps", int64_t(-1)) == 0 && summary.value("epochs", int64_t(0)) == stage.epochs;
}

std::optional<StageInputs> Pipeline::inputs_of(size_t index, const StageDirectory& directory) const {
  const auto& stage = config_.stages[index];
  StageInputs inputs = models_.inputs_of(index);
  if (const auto summary = directory.summary()) {
    directory.check_outputs();
    directory.check_inputs(inherited_fingerprints(inputs));
    if (has_length(stage, *summary)) return {};
  }
  inputs.fingerprints = fingerprints_of(index, inputs);
  return inputs;
}

bool Pipeline::run_stage(size_t index) {
  const auto& stage = config_.stages[index];
  if (ranks_.agree(stop_.requested())) {
    spdlog::info("stopped before={} note=\"run the same command to go on\"", stage.name);
    return false;
  }
  std::optional<StageDirectory> directory;
  std::optional<StageInputs> inputs;
  ranks_.zero_first([&] {
    directory.emplace(directory_->open_stage(config_, stage));
    inputs = inputs_of(index, *directory);
  });
  std::optional<StageRunner> runner;
  if (inputs)
    ranks_.together([&] {
      runner.emplace(config_, stage, *inputs, StageContext{registry_, kernels_, stop_, ranks_}, *directory);
    });
  bool done = !runner;
  ranks_.zero_first([&] {
    if (const auto summary = runner ? directory->summary() : std::nullopt)
      done = summary->value("steps", int64_t(0)) == runner->steps();
  });
  if (!done) return runner->run() == StageEnd::finished;
  spdlog::info("stage name={} note=\"already done in {}\"", stage.name, directory->path().string());
  return true;
}

bool Pipeline::run_all() {
  for (size_t i = 0; i < config_.stages.size(); ++i)
    if (!run_stage(i)) return false;
  return true;
}

bool Pipeline::run_until(const std::string& stage_name) {
  for (size_t i = 0; i < config_.stages.size(); ++i) {
    if (!run_stage(i)) return false;
    if (config_.stages[i].name == stage_name) break;
  }
  return true;
}

std::string select_algorithm(RunConfig& config, const PluginRegistry& registry, const std::string& algorithm) {
  for (const auto& stage : config.stages)
    if (stage.algorithm == algorithm) return stage.name;
  // Options that --set gave for a plugin that no stage uses yet stand in every stage.
  OptionValues options;
  for (auto& stage : config.stages)
    if (auto given = stage.plugin.extract(algorithm)) options = std::move(given.mapped());
  StageConfig probe;
  probe.algorithm = algorithm, probe.plugin[algorithm] = options;
  const uint32_t source = needs_of(registry, probe).source;
  for (size_t i = config.stages.size(); i-- > 0;) {
    auto& stage = config.stages[i];
    if (needs_of(registry, stage).source != source) continue;
    spdlog::info("plugin algorithm={} note=\"takes the place of '{}' in stage '{}'\"", algorithm, stage.algorithm,
                 stage.name);
    stage.plugin.clear();
    if (!options.empty()) stage.plugin[algorithm] = options;
    stage.name = stage.algorithm = algorithm;
    config.stages.resize(i + 1);
    config.resolved = toml_text(config);
    return algorithm;
  }
  throw UserError(
      fmt::format("no stage of the configuration can run the algorithm '{}': give one with algorithm = \"{}\"",
                  algorithm, algorithm));
}

}  // namespace dsengine
