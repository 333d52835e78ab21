// The models of a stage: loaded, checked, owned and saved in one place.
//
//   StageModels models(run, stage, inputs, algorithm.needs(), {registry, kernels, stop}, text);
//   Learner learner(algorithm, models.roles(), …);  Scorer scorer(sources, models.rewards(), registry);
//   models.save(directory, ends, &pairs);              // what the trained ones have become
#pragma once
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <vector>

#include "base/check.h"
#include "comm/local.h"
#include "plugin/instance.h"
#include "rl/reward_model.h"
#include "rl/role.h"
#include "run/run_directory.h"
#include "run/stop_signal.h"

namespace dsengine {

// Where a stage's models come from, resolved from the configuration and earlier stages.
struct StageInputs {
  std::map<uint32_t, std::filesystem::path> models;  // by role: DSE_ACTOR, …; a trained reward model's beginning
  std::vector<std::filesystem::path> rewards{};      // the model of each of the stage's reward sources; may be empty
  std::set<std::filesystem::path> drawn{};           // of these config.json alone is read, and weights are drawn
  bool quick_draws = false;                          // ModelOptions::quick_draws
  std::filesystem::path tokenizer;
  Json fingerprints = Json::object();  // of these directories, by role

  // "": there is none.
  std::filesystem::path of(uint32_t role) const;
};

// What a setting asks for cannot be had of this model, here.
class SettingError : public UserError {
 public:
  explicit SettingError(const std::string& text) : UserError(text) {}
};

struct StageContext {
  const PluginRegistry& registry;
  const Kernels& kernels;
  const StopSignal& stop;
  Communicator& ranks = alone();
};

// What a run's models compute in, there.
at::ScalarType compute_type(const RunConfig& run, const Kernels& kernels);

class StageModels {
 public:
  StageModels(const RunConfig& run, const StageConfig& stage, const StageInputs& inputs, const dse_needs& needs,
              const StageContext& context, const TextModel& text);

  Roles& roles() { return roles_; }
  const Roles& roles() const { return roles_; }
  // Of the reward sources that are asked, null where one wants none.
  const std::vector<std::shared_ptr<const RewardModel>>& rewards() const { return rewards_; }
  // Of a critic that is asked in words of its own; null: in the actor's.
  const TextModel* critic_text() const { return critic_text_ ? &*critic_text_ : nullptr; }

  // Whether ranks own parts of some role's states: to save them is a collective, then.
  bool cut() const;
  // What their roles and rewards brought from where it is kept, since the last call.
  Traffic take_traffic();

  // From here on the end of a phase lets go of the buffers that sections were brought to in it.
  void let_go_with(Phases& phases);

  // Writes the folders of every trained role (folders_of) into the stage's. ends: that the actor is saved with, none:
  // its own. pairs: what a reward model was trained on; null: this stage trains none.
  void save(const StageDirectory& directory, const std::vector<TokenId>& ends, const ExampleSet* pairs) const;

 private:
  void load(const RoleEntry& entry);
  StreamSettings streamed(const RoleEntry& entry) const;
  void read_critic_text();
  void save(const RoleEntry& entry, const Role& role, const std::filesystem::path& to, const std::vector<TokenId>& ends,
            const ExampleSet* pairs) const;

  const RunConfig& run_;
  const StageConfig& stage_;
  const StageInputs& inputs_;
  const dse_needs needs_;
  const StageContext context_;
  const TextModel& text_;
  Roles roles_;
  std::vector<std::shared_ptr<const RewardModel>> rewards_;
  std::optional<TextModel> critic_text_;
};

}  // namespace dsengine
