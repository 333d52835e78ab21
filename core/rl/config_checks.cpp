#include "rl/config_checks.h"

#include <algorithm>
#include <cctype>
#include <set>

#include "base/check.h"
#include "base/directory.h"
#include "base/printable.h"
#include "files/hf_directory.h"
#include "rl/examples.h"
#include "rl/reward_rules.h"
#include "run/metric_table.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

const Item& item_of(const PluginRegistry& registry, const StageConfig& stage) try {
  return registry.find(DSE_ALGORITHM, stage.algorithm);
} catch (const UserError& error) {
  throw UserError(stage.name.empty() ? error.what() : error_line("stage '{}': {}", stage.name, error.what()));
}

void check_rollout(const StageConfig& stage, const dse_needs& needs) {
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

void check_exactness(const StageConfig& stage) {
  if (!stage.rollout.exact) return;
  DSE_CHECK_USER(stage.rollout.weights == WeightFormat::fp32,
                 "stage '{}': rollout.exact generates from the weights that are trained: take rollout.weights away",
                 stage.name);
  DSE_CHECK_USER(stage.rollout.replay.empty(),
                 "stage '{}': rollout.exact says how answers are generated, and rollout.replay has them already",
                 stage.name);
}

void check_correction(const StageConfig& stage, const dse_needs& needs) {
  if (stage.rollout.correction == Correction::none) return;
  DSE_CHECK_USER(needs.source == DSE_SOURCE_ROLLOUT,
                 "stage '{}': rollout.correction weighs the answers of a rollout, and '{}' trains on none", stage.name,
                 stage.algorithm);
  DSE_CHECK_USER(needs.form != DSE_FORM_RAW || (needs.columns & DSE_COLUMN_ROLLOUT_LOGP),
                 "stage '{}': rollout.correction multiplies losses of tokens or rows, and '{}' has one of the whole "
                 "minibatch, which would have to read rollout_logp and correct itself",
                 stage.name, stage.algorithm);
}

// Whether a stage makes one, or begins with one.
bool has_adapter(const RunConfig& config) {
  const auto is = [](const fs::path& model) { return fs::is_directory(model) && is_adapter(model); };
  return is(config.model.actor) || std::ranges::any_of(config.stages, [&](const StageConfig& s) {
           return s.actor.lora.rank > 0 || s.critic.lora.rank > 0 || is(s.actor.from) || is(s.critic.from);
         });
}

void check_rewards(const StageConfig& stage, const PluginRegistry& registry) {
  std::set<std::string> names;
  for (const auto& reward : stage.reward_sources()) {
    const Item& item = registry.find(DSE_REWARD_ITEM, reward.plugin);
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

}  // namespace

void check_options(const RunConfig& config, const StageConfig& stage, const dse_needs& needs) {
  for (const auto* lora : {&stage.actor.lora, &stage.critic.lora}) {
    const LoraConfig none;
    const bool changed = lora->alpha != none.alpha || lora->rslora != none.rslora || lora->targets != none.targets ||
                         lora->base != none.base || lora->learning_rate != 0 || !lora->also_train.empty();
    DSE_CHECK_USER(!changed || has_adapter(config),
                   "stage '{}': keys of lora are set, but lora.rank is 0: there is no adapter", stage.name);
  }
  DSE_CHECK_USER(!stage.offload.gradients || stage.offload.moments,
                 "stage '{}': offload.gradients is for updates that are made beside offloaded moments: set "
                 "offload.moments",
                 stage.name);
  DSE_CHECK_USER(!stage.offload.weights || (stage.offload.gradients && (stage.offload.average || !stage.has_average())),
                 "stage '{}': offload.weights is for updates that are made where the weights are: set {}", stage.name,
                 stage.offload.gradients ? "offload.average" : "offload.moments and offload.gradients");
  DSE_CHECK_USER(
      !stage.offload.weights || (stage.actor.optimizer.master_weights && stage.critic.optimizer.master_weights),
      "stage '{}': offload.weights keeps float32 weights in the host's memory, where master_weights = false "
      "keeps none: choose one",
      stage.name);
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
  check_rollout(stage, needs);
  check_exactness(stage);
  check_correction(stage, needs);
}

AlgorithmInstance algorithm_of(const PluginRegistry& registry, const StageConfig& stage) {
  const Item& item = item_of(registry, stage);
  const auto it = stage.plugin.find(item.name);
  return {item, {item, it == stage.plugin.end() ? OptionValues{} : it->second}};
}

dse_needs needs_of(const PluginRegistry& registry, const StageConfig& stage) {
  return algorithm_of(registry, stage).needs();
}

void check_from(const RunConfig& config, size_t index, const std::string& from) {
  const auto& stages = config.stages;
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

void check_stage(const RunConfig& config, size_t index, const PluginRegistry& registry) {
  const auto& stage = config.stages[index];
  const auto needs = needs_of(registry, stage);
  const auto& model = config.model;
  // Where nothing else is named, later stages read its tokenizer alone.
  if (!model.actor.empty() && (index == 0 || model.tokenizer.empty())) check_directory(model.actor, "model.actor");
  if (!model.tokenizer.empty()) check_directory(model.tokenizer, "model.tokenizer");
  for (const auto& [name, _] : stage.plugin)
    DSE_CHECK_USER(name == stage.algorithm,
                   "stage '{}': plugin.{} sets options of an algorithm the stage does not use ({})", stage.name, name,
                   stage.algorithm);
  for (const auto* from : {&stage.actor.from, &stage.critic.from, &stage.reference.from})
    check_from(config, index, *from);
  for (const auto& reward : stage.reward_sources()) check_from(config, index, reward.from);
  DSE_CHECK_USER(!stage.data.sources.empty(), "stage '{}' has no data: set data.sources", stage.name);
  Part::of(stage.data, needs.source, config.seed);
  for (const auto* sources : {&stage.data.sources, &stage.data.heldout, &stage.ptx.sources})
    for (const auto& from : *sources) {
      const Item& item = registry.find(DSE_DATASET, from.reader);
      DatasetInstance(item, OptionSet(item, from.options), from.path);  // opens and validates it
    }
  if (rows_together(needs) == 2)
    DSE_CHECK_USER(stage.mini_batch_size % 2 == 0 && stage.micro_batch_size % 2 == 0,
                   "stage '{}': mini_batch_size and micro_batch_size count rows, two a pair: {} and {} should be even",
                   stage.name, stage.mini_batch_size, stage.micro_batch_size);
  check_options(config, stage, needs);
  if (needs.source != DSE_SOURCE_ROLLOUT) return;
  DSE_CHECK_USER(stage.rollout.samples_per_prompt >= needs.group_size,
                 "stage '{}': the algorithm '{}' compares at least {} answers a prompt: set rollout.samples_per_prompt",
                 stage.name, stage.algorithm, needs.group_size);
  check_rewards(stage, registry);
}

}  // namespace dsengine
