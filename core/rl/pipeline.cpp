#include "rl/pipeline.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <cctype>
#include <map>
#include <set>

#include "base/check.h"
#include "base/directory.h"
#include "base/printable.h"
#include "rl/fingerprint.h"
#include "rl/input_check.h"
#include "run/config_print.h"
#include "run/metric_table.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

const Item& algorithm_of(const PluginRegistry& registry, const StageConfig& stage) try {
  return registry.find(DSE_ALGORITHM, stage.algorithm);
} catch (const UserError& error) {
  throw UserError(stage.name.empty() ? error.what() : error_line("stage '{}': {}", stage.name, error.what()));
}

dse_needs needs_of(const PluginRegistry& registry, const StageConfig& stage) {
  const Item& item = algorithm_of(registry, stage);
  const auto it = stage.plugin.find(item.name);
  return AlgorithmInstance(item, OptionSet(item, it == stage.plugin.end() ? OptionValues{} : it->second)).needs();
}

// The folders of a stage's models, by role; "" where there is none.
std::vector<std::pair<std::string, fs::path>> models_of(const StageInputs& inputs) {
  std::vector<std::pair<std::string, fs::path>> models;
  const auto add = [&](const std::string& role, const fs::path& path) {
    if (!path.empty()) models.emplace_back(role, path);
  };
  add("actor", inputs.actor), add("reference", inputs.reference);
  add("critic", inputs.critic), add("reward model", inputs.reward);
  for (size_t i = 1; i < inputs.rewards.size(); ++i) add(fmt::format("reward model {}", i + 1), inputs.rewards[i]);
  return models;
}

}  // namespace

Pipeline::Pipeline(const RunConfig& config, const PluginRegistry& registry, const Kernels& kernels,
                   const StopSignal& stop, Changes changes)
    : config_(config), registry_(registry), kernels_(kernels), stop_(stop) {
  DSE_CHECK_USER(!config.stages.empty(), "the configuration has no [[stage]]");
  std::vector<size_t> open;
  std::vector<fs::path> done;
  for (size_t i = 0; i < config.stages.size(); ++i) {
    const fs::path folder = config.output_dir / config.stages[i].name;
    if (fs::exists(folder / "done.json"))
      done.push_back(folder);
    else
      open.push_back(i);
  }
  for (const size_t i : open) check_stage(i);
  try {
    InputCheck check(config, registry, kernels);
    for (const size_t i : open)
      if (!stop.requested()) check.stage(i, needs_of(registry, config.stages[i]), inputs_of(i));
  } catch (const UserError&) {
    // What an earlier stage left may have been changed since: that is the reason, then.
    for (const auto& folder : done)
      if (const auto what = changed_output(folder); what && changes == Changes::refused) throw UserError(*what);
    throw;
  }
  directory_.emplace(config, changes);
}

void Pipeline::check_from(size_t index, const std::string& from) const {
  const auto& stages = config_.stages;
  const auto named = std::find_if(stages.begin(), stages.end(), [&](const auto& s) { return s.name == from; });
  if (from.empty()) return;
  if (named != stages.end())
    DSE_CHECK_USER(size_t(named - stages.begin()) < index,
                   "stage '{}' takes a model from '{}', which does not come before it", stages[index].name, from);
  else
    DSE_CHECK_USER(fs::is_directory(from),
                   "stage '{}' takes a model from '{}', which is neither an earlier stage nor a directory{}",
                   stages[index].name, from, fs::exists(from) ? " but a file: give the directory it is in" : "");
}

void Pipeline::check_stage(size_t index) const {
  const auto& stage = config_.stages[index];
  const auto needs = needs_of(registry_, stage);
  const auto& model = config_.model;
  // Where nothing else is named, later stages read its tokenizer alone.
  if (!model.actor.empty() && (index == 0 || model.tokenizer.empty())) check_directory(model.actor, "model.actor");
  if (!model.tokenizer.empty()) check_directory(model.tokenizer, "model.tokenizer");
  for (const auto& [name, _] : stage.plugin)
    DSE_CHECK_USER(name == stage.algorithm,
                   "stage '{}': plugin.{} sets options of an algorithm the stage does not use ({})", stage.name, name,
                   stage.algorithm);
  for (const auto* from : {&stage.actor.from, &stage.critic.from, &stage.reference.from}) check_from(index, *from);
  for (const auto& reward : stage.reward_sources()) check_from(index, reward.from);
  DSE_CHECK_USER(!stage.data.sources.empty(), "stage '{}' has no data: set data.sources", stage.name);
  Part::of(stage.data, needs.source, config_.seed);
  for (const auto* sources : {&stage.data.sources, &stage.data.heldout, &stage.ptx.sources})
    for (const auto& from : *sources) {
      const Item& item = registry_.find(DSE_DATASET, from.reader);
      DatasetInstance(item, OptionSet(item, from.options), from.path);  // opens and validates it
    }
  if (rows_together(needs) == 2)
    DSE_CHECK_USER(stage.mini_batch_size % 2 == 0 && stage.micro_batch_size % 2 == 0,
                   "stage '{}': mini_batch_size and micro_batch_size count rows, two a pair: {} and {} should be even",
                   stage.name, stage.mini_batch_size, stage.micro_batch_size);
  check_options(stage, needs);
  if (needs.source != DSE_SOURCE_ROLLOUT) return;
  DSE_CHECK_USER(stage.rollout.samples_per_prompt >= needs.group_size,
                 "stage '{}': the algorithm '{}' compares at least {} answers a prompt: set rollout.samples_per_prompt",
                 stage.name, stage.algorithm, needs.group_size);
  std::set<std::string> names;
  for (const auto& reward : stage.reward_sources()) {
    const Item& item = registry_.find(DSE_REWARD_ITEM, reward.plugin);
    RewardRules::of(item, reward.options);
    const auto& name = reward.name.empty() ? reward.plugin : reward.name;
    DSE_CHECK_USER(names.insert(name).second, "stage '{}': two rewards are called '{}': give them a name", stage.name,
                   name);
    const bool plain =
        std::all_of(name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-'; });
    DSE_CHECK_USER(
        plain && !find_metric("reward_" + name),
        "stage '{}': the reward's name '{}' should be letters, digits, - and _, and no metric of the engine's",
        stage.name, name);
    DSE_CHECK_USER(reward.from.empty() || item.reward().needs_model,
                   "stage '{}': the reward '{}' reads no model: take its 'from' away", stage.name, name);
  }
}

// What of the engine a stage switches on: the algorithm gives what they need.
void Pipeline::check_options(const StageConfig& stage, const dse_needs& needs) const {
  for (const auto* lora : {&stage.actor.lora, &stage.critic.lora}) {
    const LoraConfig none;
    const bool used = std::any_of(config_.stages.begin(), config_.stages.end(),
                                  [](const auto& s) { return s.actor.lora.rank > 0 || s.critic.lora.rank > 0; });
    const bool changed = lora->alpha != none.alpha || lora->rslora != none.rslora || lora->targets != none.targets ||
                         lora->learning_rate != 0 || !lora->also_train.empty();
    DSE_CHECK_USER(used || !changed, "stage '{}': keys of lora are set, but lora.rank is 0: there is no adapter",
                   stage.name);
  }
  DSE_CHECK_USER(stage.ptx.sources.empty() || stage.ptx.coefficient > 0,
                 "stage '{}': ptx has texts, but ptx.coefficient is 0", stage.name);
  const RewardSource none;
  const auto& one = stage.reward;
  DSE_CHECK_USER(stage.rewards.empty() || (one.plugin == none.plugin && one.from.empty() && one.weight == 1 &&
                                           one.name.empty() && one.options.empty()),
                 "stage '{}': both reward and rewards are given: put all into rewards", stage.name);
  if (stage.ptx.coefficient > 0) {
    DSE_CHECK_USER(needs.trained & DSE_ACTOR, "stage '{}': ptx adds to the actor's loss, and '{}' trains no actor",
                   stage.name, stage.algorithm);
    DSE_CHECK_USER(!stage.ptx.sources.empty(), "stage '{}': ptx has no texts: set ptx.sources", stage.name);
  }
  const uint32_t both = DSE_COLUMN_LOGP | DSE_COLUMN_OLD_LOGP;
  DSE_CHECK_USER(stage.target_kl == 0 || (needs.source == DSE_SOURCE_ROLLOUT && (needs.columns & both) == both),
                 "stage '{}': target_kl compares the policy with the one that sampled, which '{}' does not read",
                 stage.name, stage.algorithm);
  const auto& rollout = stage.rollout;
  if (needs.source != DSE_SOURCE_ROLLOUT || !rollout.dynamic_sampling) return;
  DSE_CHECK_USER(rollout.samples_per_prompt >= 2,
                 "stage '{}': rollout.dynamic_sampling compares the answers to a prompt: set "
                 "rollout.samples_per_prompt to 2 or more",
                 stage.name);
  DSE_CHECK_USER(rollout.record.empty() && rollout.replay.empty(),
                 "stage '{}': rollout.record and rollout.replay hold one round a step: switch "
                 "rollout.dynamic_sampling off",
                 stage.name);
}

fs::path Pipeline::model_of(const std::string& stage_name) const { return config_.output_dir / stage_name / "model"; }

std::optional<fs::path> Pipeline::earlier(size_t index, ModelKind kind) const {
  for (size_t i = index; i-- > 0;) {
    const bool language = needs_of(registry_, config_.stages[i]).trained & DSE_ACTOR;
    if (language == (kind == ModelKind::language)) return model_of(config_.stages[i].name);
  }
  return std::nullopt;
}

const StageConfig* Pipeline::maker_of(const fs::path& model) const {
  for (const auto& stage : config_.stages)
    if (model.parent_path() == config_.output_dir / stage.name) return &stage;
  return nullptr;
}

fs::path Pipeline::resolve(size_t index, const std::string& from, const fs::path& fallback) const {
  if (from.empty()) return fallback;
  check_from(index, from);
  for (const auto& stage : config_.stages)
    if (stage.name == from) return model_of(from);
  return from;
}

StageInputs Pipeline::inputs_of(size_t index) const {
  const auto& stage = config_.stages[index];
  const auto needs = needs_of(registry_, stage);
  StageInputs in;
  const fs::path start = earlier(index, ModelKind::language).value_or(config_.model.actor);
  in.actor = resolve(index, stage.actor.from, start);
  DSE_CHECK_USER(!in.actor.empty(), "stage '{}' has no model to start from: set model.actor", stage.name);
  in.random_init = config_.model.init == ModelInit::random && in.actor == config_.model.actor;
  // A model that brings a tokenizer is asked in its own words.
  in.tokenizer = config_.model.tokenizer;
  if (in.tokenizer.empty())
    in.tokenizer = maker_of(in.actor) || TextModel::folder_of(in.actor) ? in.actor : config_.model.actor;
  if (in.tokenizer.empty()) in.tokenizer = in.actor;
  in.reference = resolve(index, stage.reference.from, in.actor);
  const auto reward = earlier(index, ModelKind::value);
  if (needs.trained & DSE_REWARD) in.reward = in.actor;
  for (const auto& source : stage.reward_sources()) {
    if (!(needs.roles & DSE_REWARD) || (needs.trained & DSE_REWARD)) break;
    const bool model = registry_.find(DSE_REWARD_ITEM, source.plugin).reward().needs_model;
    in.rewards.push_back(model ? resolve(index, source.from, reward.value_or(fs::path())) : fs::path());
    if (in.reward.empty()) in.reward = in.rewards.back();
  }
  if (in.reward.empty()) in.reward = reward.value_or(fs::path());
  in.critic = resolve(index, stage.critic.from, in.reward.empty() ? in.actor : in.reward);
  return in;
}

Json Pipeline::inherited_fingerprints(const StageInputs& inputs) const {
  Json all = Json::object();
  for (const auto& [role, path] : models_of(inputs))
    if (const auto* maker = maker_of(path))
      all[role] = model_fingerprint(
          path, directory_->open_stage(config_, *maker).outputs().value(path.filename().string(), Json::object()));
  return all;
}

Json Pipeline::fingerprints_of(size_t index, const StageInputs& inputs) const {
  const auto& stage = config_.stages[index];
  const auto models = models_of(inputs);
  std::set<const StageConfig*> makers;
  for (const auto& [_, path] : models)
    if (const auto* maker = maker_of(path); maker && makers.insert(maker).second)
      directory_->open_stage(config_, *maker).check_outputs();
  Json all = inherited_fingerprints(inputs);
  std::map<fs::path, Json> known;
  for (const auto& [role, path] : models) {
    if (all.contains(role)) continue;
    const bool drawn = inputs.random_init && path == inputs.actor;
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

bool Pipeline::run_stage(size_t index) {
  if (stop_.requested()) return false;
  const auto& stage = config_.stages[index];
  const StageDirectory directory = directory_->open_stage(config_, stage);
  const auto summary = directory.summary();
  const auto already_done = [&] {
    spdlog::info("stage name={} note=\"already done in {}\"", stage.name, directory.path().string());
    return true;
  };
  StageInputs inputs = inputs_of(index);
  if (summary) {
    directory.check_outputs();
    directory.check_inputs(inherited_fingerprints(inputs));
    if (has_length(stage, *summary)) return already_done();
  }
  inputs.fingerprints = fingerprints_of(index, inputs);
  StageRunner runner(config_, stage, inputs, {registry_, kernels_, stop_}, directory);
  if (summary && summary->value("steps", int64_t(0)) == runner.steps()) return already_done();
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
