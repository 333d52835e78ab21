#include "rl/input_resolver.h"

#include "base/check.h"
#include "rl/config_checks.h"

namespace dsengine {

namespace fs = std::filesystem;

fs::path InputResolver::model_of(const std::string& stage_name) const {
  return config_.output_dir / stage_name / "model";
}

std::optional<fs::path> InputResolver::earlier(size_t index, ModelKind kind) const {
  for (size_t i = index; i-- > 0;) {
    const bool language = needs_of(registry_, config_.stages[i]).trained & DSE_ACTOR;
    if (language == (kind == ModelKind::language)) return model_of(config_.stages[i].name);
  }
  return std::nullopt;
}

const StageConfig* InputResolver::maker_of(const fs::path& model) const {
  for (const auto& stage : config_.stages)
    if (model.parent_path() == config_.output_dir / stage.name) return &stage;
  return nullptr;
}

fs::path InputResolver::resolve(size_t index, const std::string& from, const fs::path& fallback) const {
  if (from.empty()) return fallback;
  check_from(config_, index, from);
  for (const auto& stage : config_.stages)
    if (stage.name == from) return model_of(from);
  return from;
}

StageInputs InputResolver::inputs_of(size_t index) const {
  const auto& stage = config_.stages[index];
  const auto needs = needs_of(registry_, stage);
  StageInputs in;
  const fs::path actor =
      resolve(index, stage.actor.from, earlier(index, ModelKind::language).value_or(config_.model.actor));
  DSE_CHECK_USER(!actor.empty(), "stage '{}' has no model to start from: set model.actor", stage.name);
  if (config_.model.init == ModelInit::random && actor == config_.model.actor) in.drawn.insert(actor);
  // A model that brings a tokenizer is asked in its own words.
  in.tokenizer = config_.model.tokenizer;
  if (in.tokenizer.empty()) in.tokenizer = maker_of(actor) || TextModel::folder_of(actor) ? actor : config_.model.actor;
  if (in.tokenizer.empty()) in.tokenizer = actor;
  const auto earlier_reward = earlier(index, ModelKind::value);
  fs::path reward;
  if (needs.trained & DSE_REWARD) reward = actor;
  for (const auto& source : stage.reward_sources()) {
    if (!(needs.roles & DSE_REWARD) || (needs.trained & DSE_REWARD)) break;
    in.rewards.push_back(
        wants_model(registry_, source) ? resolve(index, source.from, earlier_reward.value_or(fs::path())) : fs::path());
    if (reward.empty()) reward = in.rewards.back();
  }
  if (reward.empty()) reward = earlier_reward.value_or(fs::path());
  in.models = {{DSE_ACTOR, actor},
               {DSE_REFERENCE, resolve(index, stage.reference.from, actor)},
               {DSE_REWARD, reward},
               {DSE_CRITIC, resolve(index, stage.critic.from, reward.empty() ? actor : reward)}};
  return in;
}

}  // namespace dsengine
