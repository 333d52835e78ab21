#include "rl/pipeline.h"

#include <spdlog/spdlog.h>

#include "base/check.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

dse_needs needs_of(const PluginRegistry& registry, const StageConfig& stage) {
  const Item& item = registry.find(DSE_ALGORITHM, stage.algorithm);
  const auto it = stage.plugin.find(item.name);
  return AlgorithmInstance(item, OptionSet(item, it == stage.plugin.end() ? OptionValues{} : it->second)).needs();
}

}  // namespace

Pipeline::Pipeline(const RunConfig& config, const PluginRegistry& registry, const Kernels& kernels)
    : config_(config), registry_(registry), kernels_(kernels), directory_(config) {
  DSE_CHECK_USER(!config.stages.empty(), "the configuration has no [[stage]]");
  for (const auto& stage : config.stages) {  // every mistake a plugin can see, before anything runs
    needs_of(registry, stage);
    for (const auto& [name, _] : stage.plugin)
      DSE_CHECK_USER(name == stage.algorithm,
                     "stage '{}': plugin.{} sets options of an algorithm the stage does not "
                     "use ({})",
                     stage.name, name, stage.algorithm);
  }
}

fs::path Pipeline::model_of(const std::string& stage_name) const { return config_.output_dir / stage_name / "model"; }

std::optional<fs::path> Pipeline::earlier(size_t index, const std::string& kind) const {
  for (size_t i = index; i-- > 0;) {
    const auto done = directory_.open_stage(config_, config_.stages[i]);
    const auto summary = done.summary();
    if (summary && summary->value("kind", "") == kind) return done.model();
  }
  return std::nullopt;
}

fs::path Pipeline::resolve(size_t index, const std::string& from, const fs::path& fallback) const {
  if (from.empty()) return fallback;
  for (size_t i = 0; i < config_.stages.size(); ++i)
    if (config_.stages[i].name == from) {
      DSE_CHECK_USER(i < index, "stage '{}' takes a model from '{}', which does not come before it",
                     config_.stages[index].name, from);
      return directory_.open_stage(config_, config_.stages[i]).model();
    }
  DSE_CHECK_USER(fs::is_directory(from),
                 "stage '{}' takes a model from '{}', which is neither an earlier stage nor a directory",
                 config_.stages[index].name, from);
  return from;
}

StageInputs Pipeline::inputs_of(size_t index) const {
  const auto& stage = config_.stages[index];
  const auto needs = needs_of(registry_, stage);
  StageInputs in;
  const fs::path start = earlier(index, "language").value_or(config_.model.actor);
  in.actor = resolve(index, stage.actor.from, start);
  DSE_CHECK_USER(!in.actor.empty(), "stage '{}' has no model to start from: set model.actor", stage.name);
  in.random_init = config_.model.init == "random" && in.actor == config_.model.actor;
  in.tokenizer = config_.model.tokenizer.empty() ? config_.model.actor : config_.model.tokenizer;
  if (in.tokenizer.empty()) in.tokenizer = in.actor;
  in.reference = resolve(index, stage.reference.from, in.actor);
  const auto reward = earlier(index, "value");
  if (needs.trained & DSE_REWARD)
    in.reward = in.actor;
  else
    in.reward = resolve(index, stage.reward.from, reward.value_or(fs::path()));
  in.critic = resolve(index, stage.critic.from, in.reward.empty() ? in.actor : in.reward);
  return in;
}

bool Pipeline::run_stage(size_t index) {
  const auto& stage = config_.stages[index];
  const StageDirectory directory = directory_.open_stage(config_, stage);
  if (directory.summary()) {
    spdlog::info("stage name={} note=\"already done in {}\"", stage.name, directory.path().string());
    return true;
  }
  const StageInputs inputs = inputs_of(index);
  StageRunner runner(config_, stage, inputs, {registry_, kernels_, stop_}, directory);
  return runner.run() == StageEnd::finished;
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
  const uint32_t source = [&] {
    StageConfig probe;
    probe.algorithm = algorithm;
    return needs_of(registry, probe).source;
  }();
  for (const auto& stage : config.stages)
    if (stage.algorithm == algorithm) return stage.name;
  for (size_t i = config.stages.size(); i-- > 0;) {
    auto& stage = config.stages[i];
    if (needs_of(registry, stage).source != source) continue;
    spdlog::info("plugin algorithm={} note=\"takes the place of '{}' in stage '{}'\"", algorithm, stage.algorithm,
                 stage.name);
    stage.plugin.clear();
    stage.name = stage.algorithm = algorithm;
    config.stages.resize(i + 1);
    return algorithm;
  }
  throw UserError(
      fmt::format("no stage of the configuration can run the algorithm '{}': give one with algorithm = "
                  "\"{}\"",
                  algorithm, algorithm));
}

}  // namespace dsengine
