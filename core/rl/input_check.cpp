#include "rl/input_check.h"

#include <spdlog/spdlog.h>

#include "base/check.h"
#include "base/regular_file.h"
#include "files/hf_directory.h"
#include "model/hf/architecture.h"
#include "model/hf/load.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

// What a stage says of its models and records it says when it runs.
class Quiet {
 public:
  Quiet() : level_(spdlog::get_level()) { spdlog::set_level(spdlog::level::err); }
  ~Quiet() { spdlog::set_level(level_); }
  Quiet(const Quiet&) = delete;
  Quiet& operator=(const Quiet&) = delete;

 private:
  spdlog::level::level_enum level_;
};

ModelGraph graph_of(const fs::path& model, const PluginRegistry& registry) {
  const fs::path file = base_directory(model) / "config.json";
  return declare_architecture(read_json(file), file.string(), registry);
}

}  // namespace

InputCheck::InputCheck(const RunConfig& config, const PluginRegistry& registry, const StopSignal& stop, bool for_card,
                       int64_t ranks)
    : config_(config), registry_(registry), stop_(stop), ranks_(ranks), kernels_(registry, Device::meta(), for_card) {}

fs::path InputCheck::origin_of(const fs::path& model) const {
  const auto made = origins_.find(model);
  return made == origins_.end() ? model : made->second;
}

void InputCheck::check_model(const fs::path& model, ModelKind kind, bool random, bool trained) {
  if (origins_.contains(model)) return;
  load_model(model, registry_, kernels_, {.kind = kind, .random_init = random, .new_value_head = trained});
}

// Opens the plugins of the models while the log is heard: it names a library before that is opened.
void InputCheck::open_plugins(const StageInputs& inputs) const {
  std::vector<fs::path> models = inputs.rewards;
  for (const auto& entry : kRoles) models.push_back(inputs.of(entry.bit));
  for (const auto& model : models) {
    if (model.empty()) continue;
    try {
      check_model_directory(origin_of(model));
      graph_of(origin_of(model), registry_);
    } catch (const ReadError&) {
      throw;
    } catch (const UserError&) {  // told by the check itself
    }
  }
}

void InputCheck::stage(size_t index, const dse_needs& needs, const StageInputs& inputs) {
  read_.reset();
  open_plugins(inputs);
  const Quiet quiet;
  const auto& stage = config_.stages[index];
  const fs::path actor = inputs.of(DSE_ACTOR), from = actor.empty() ? inputs.of(DSE_REWARD) : actor;
  for (const auto& entry : kRoles) {
    const bool trained = needs.trained & entry.bit;
    if (!(needs.roles & entry.bit) || (entry.bit == DSE_REWARD && !trained)) continue;
    const fs::path model = inputs.of(entry.bit);
    check_model(model, entry.kind, inputs.drawn.contains(model), trained);
  }
  if (!inputs.rewards.empty()) check_reward_models(stage.reward_sources(), inputs.rewards, registry_);
  for (const auto& model : inputs.rewards)
    if (!model.empty()) check_model(model, ModelKind::value, inputs.drawn.contains(model), false);

  const fs::path origin = origin_of(from);
  TextModel text = TextModel::load(origin_of(inputs.tokenizer), origin);
  StageData data = StageData::load(stage, needs.source, registry_, text, config_.seed);
  const ModelGraph graph = graph_of(origin, registry_);
  data.check_fit(stage, needs.source, graph, text, inputs.tokenizer);
  // What is still to be made has the shapes of what it begins with, an adapter merged.
  const auto shapes_of = [&](const fs::path& model) {
    return origins_.contains(model) ? base_directory(origin_of(model)) : model;
  };
  StageInputs there = inputs;
  for (auto& [_, model] : there.models) model = shapes_of(model);
  for (auto& model : there.rewards) model = shapes_of(model);
  there.tokenizer = origin_of(there.tokenizer);
  read_.emplace(Read{std::move(there), std::move(text), std::move(data)});
  const fs::path folder = config_.output_dir / stage.name;
  for (const auto& entry : kRoles) {
    if (!(needs.trained & entry.bit)) continue;
    const RoleFolders made = folders_of(entry, needs.trained);
    for (const auto& name : {made.model, made.average, made.adapter})
      origins_[folder / name] = origin_of(inputs.of(entry.bit));
  }
}

StagePlan InputCheck::plan(const StageConfig& variant) {
  DSE_CHECK(read_, "no stage was looked at");
  const Quiet quiet;
  StagePlan plan =
      rehearse(config_, variant, read_->inputs, {registry_, kernels_, stop_, ranks_}, read_->text, read_->data);
  plan.host_apart = host_apart_;
  return plan;
}

}  // namespace dsengine
