#include "rl/stage_models.h"

#include <spdlog/spdlog.h>

#include "base/check.h"
#include "base/philox.h"
#include "files/atomic_directory.h"
#include "files/hf_directory.h"
#include "model/hf/adapter_files.h"
#include "model/hf/load.h"
#include "model/hf/save.h"

namespace dsengine {

namespace fs = std::filesystem;

fs::path StageInputs::of(uint32_t role) const {
  const auto found = models.find(role);
  return found == models.end() ? fs::path() : found->second;
}

StageModels::StageModels(const RunConfig& run, const StageConfig& stage, const StageInputs& inputs,
                         const dse_needs& needs, const StageContext& context, const TextModel& text)
    : run_(run), stage_(stage), inputs_(inputs), needs_(needs), context_(context), text_(text) {
  const auto& lora = stage.actor.lora;
  roles_.reference_is_base = (needs.roles & DSE_REFERENCE) && (needs.trained & DSE_ACTOR) && lora.rank > 0 &&
                             lora.also_train.empty() && inputs.of(DSE_REFERENCE) == inputs.of(DSE_ACTOR);
  for (const auto& entry : kRoles) {
    const bool alias = entry.bit == DSE_REFERENCE && roles_.reference_is_base;
    const bool asked = entry.bit == DSE_REWARD && !(needs.trained & DSE_REWARD);  // by reward plugins
    if (!(needs.roles & entry.bit) || asked) continue;
    // In place of a model that is to be made stands what it begins with, which may have other words.
    if (entry.bit == DSE_CRITIC && context.kernels.device().has_values()) read_critic_text();
    if (alias)
      spdlog::info("role name={} note=\"the actor with its adapter off\"", entry.name);
    else
      load(entry);
  }
  if ((needs.roles & DSE_REWARD) && !(needs.trained & DSE_REWARD))
    rewards_ = load_reward_models(stage.reward_sources(), inputs.rewards, context.registry, context.kernels, text, {},
                                  {.offload = stage.offload.frozen}, compute_type(run, context.kernels));
}

at::ScalarType compute_type(const RunConfig& run, const Kernels& kernels) {
  const bool narrow = run.dtype == NumberFormat::bf16 || (run.dtype == NumberFormat::automatic && kernels.on_card());
  return narrow ? at::kBFloat16 : at::kFloat;
}

// Of a role that is trained without an adapter nothing is frozen.
StreamSettings StageModels::streamed(const RoleEntry& entry) const {
  const bool trained = needs_.trained & entry.bit;
  // A reference of the actor's own weights is that of what the actor begins with.
  const bool like_actor = !trained && (needs_.trained & DSE_ACTOR) && inputs_.of(entry.bit) == inputs_.of(DSE_ACTOR);
  if (!trained && !like_actor) return {.offload = stage_.offload.frozen};
  const LoraConfig& lora = trained ? (stage_.*entry.config).lora : stage_.actor.lora;
  if (lora.rank == 0 && !is_adapter(inputs_.of(entry.bit)))
    return {.offload = trained ? stage_.offload.weights : stage_.offload.frozen,
            .trained = trained,
            .wide = !trained || (stage_.*entry.config).optimizer.master_weights};
  return {.format = lora.base, .offload = stage_.offload.frozen};
}

bool StageModels::cut() const {
  bool cut = false;
  roles_.each_trained([&](const RoleEntry&, const Role& role) { cut |= role.optimizer->cut(); });
  return cut;
}

Traffic StageModels::take_traffic() {
  Traffic traffic;
  roles_.each([&](const RoleEntry&, Role& role) { traffic += role.take_traffic(); });
  for (const auto& reward : rewards_)
    if (reward) traffic += reward->model.take_traffic();
  return traffic;
}

void StageModels::let_go_with(Phases& phases) {
  for (size_t p = 0; p < kChoices<Phase>.size(); ++p)
    phases.on_leave(Phase(p), [this] {
      roles_.each([](const RoleEntry&, const Role& role) { role.model.let_go_buffers(); });
      for (const auto& reward : rewards_)
        if (reward) reward->model.let_go_buffers();
    });
}

void StageModels::load(const RoleEntry& entry) {
  const fs::path from = inputs_.of(entry.bit);
  const bool shapes = !context_.kernels.device().has_values();  // perhaps of a model that is still to be trained
  const bool random = shapes || inputs_.drawn.contains(from);
  const bool train = needs_.trained & entry.bit;
  const RoleConfig config = entry.config ? stage_.*entry.config : RoleConfig{};
  const bool exact = entry.bit == DSE_ACTOR && needs_.source == DSE_SOURCE_ROLLOUT && stage_.rollout.exact;
  const Kernels& kernels = exact ? context_.kernels.exact() : context_.kernels;
  auto role = std::make_shared<Role>(Role{load_model(from, context_.registry, kernels,
                                                     {.kind = entry.kind,
                                                      .random_init = random,
                                                      .quick_draws = inputs_.quick_draws,
                                                      .new_value_head = train,
                                                      .seed = run_.seed,
                                                      .dtype = compute_type(run_, context_.kernels),
                                                      .streamed = streamed(entry)}),
                                          nullptr, config.optimizer, config.lora, stage_.offload});
  if (role->model.device().has_values())
    DSE_CHECK_USER(role->model.finite(), "{}: the weights hold NaN or infinity", from.string());
  role->model.set_recompute(stage_.recompute);
  if (train) role->enable_training(run_.seed ^ name_hash(entry.name), {&context_.ranks, stage_.zero_stage});
  if (exact && !role->model.exact_rollouts())
    throw SettingError(
        error_line("stage '{}': rollout.exact: not every operation of the actor has a kernel that gives a "
                   "row the same bits in any batch: set it to false",
                   stage_.name));
  if (train && !config.optimizer.master_weights && role->model.dtype() != at::kBFloat16)
    spdlog::warn("role name={} master_weights=false note=\"without effect: what is trained is {}\"", entry.name,
                 role->model.dtype() == at::kFloat ? "float32" : "float64");
  spdlog::info("role name={} parameters={} trained={} from={}", entry.name, role->model.parameter_count(),
               role->model.trained_parameter_count(), from.string());
  roles_.*entry.role = std::move(role);
}

// A critic reads the answer's ids, token by token; what it is asked may stand in its own words.
void StageModels::read_critic_text() {
  const fs::path from = inputs_.of(DSE_CRITIC);
  if (!TextModel::folder_of(from)) return;
  auto text = TextModel::load(from, from);
  DSE_CHECK_USER(
      text.tokenizer.has_ids_of(text_.tokenizer),
      "the critic {} has another vocabulary than the actor: a critic values the actor's own tokens; set "
      "critic.from to a model of the actor's family (a reward model with another vocabulary may still score)",
      from.string());
  if (needs_.source != DSE_SOURCE_ROLLOUT || !text.has_words_beside(text_)) return;
  spdlog::info("role name=critic note=\"asked by its own chat template\"");
  critic_text_ = std::move(text);
}

void StageModels::save(const StageDirectory& directory, const std::vector<TokenId>& ends,
                       const ExampleSet* pairs) const {
  roles_.each_trained([&](const RoleEntry& entry, const Role& role) {
    save(entry, role, directory.path(), entry.bit == DSE_ACTOR ? ends : std::vector<TokenId>{},
         entry.kind == ModelKind::value ? pairs : nullptr);
  });
}

void StageModels::save(const RoleEntry& entry, const Role& role, const fs::path& to, const std::vector<TokenId>& ends,
                       const ExampleSet* pairs) const {
  const RoleFolders folders = folders_of(entry, needs_.trained);
  const fs::path words = entry.bit == DSE_CRITIC && critic_text_ ? inputs_.of(DSE_CRITIC) : inputs_.tokenizer;
  const fs::path tokenizer = TextModel::folder_of(words).value_or(words);
  const auto write = [&](const Model& model, const std::string& name, const auto& save_to) {
    AtomicDirectory out(to / name);
    save_to(out.path());
    if (pairs) moments_on(model, *pairs).write(out.path());  // what the reward plugin scales by
    out.commit();
    spdlog::info("saved directory={}", (to / name).string());
  };
  const auto write_model = [&](const Model& model, const std::string& name) {
    write(model, name, [&](const fs::path& folder) { save_model(model, folder, tokenizer, {.ends = ends}); });
  };
  write_model(role.model, folders.model);
  if (!role.average.empty()) write_model(role.averaged(), folders.average);
  // A base that was drawn, or that was trained in part, is in no folder that the adapter could name.
  const bool drawn = inputs_.drawn.contains(role.model.origin().directory);
  if (!role.model.adapter() || !role.lora.also_train.empty() || drawn) return;
  write(role.model, folders.adapter,
        [&](const fs::path& folder) { save_adapter(role.model, folder, role.model.origin().base, tokenizer, ends); });
}

}  // namespace dsengine
