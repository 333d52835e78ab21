// One stage of a run: an algorithm trains its roles on records, pairs or rollouts, step by step, with
// metrics, evaluation, checkpoints and resume.
//
//   StageRunner stage(config, stage_config, inputs, {registry, kernels, stop}, directory);
//   if (stage.run() == StageEnd::stopped) return 0;      // a signal came; the checkpoint is written
//
// Files: metrics.jsonl (a line a step), eval.jsonl, tensorboard/, checkpoints/, and at the end model/ (and critic/;
// with ema_decay ema/ and critic_ema/ too, with a LoRA adapter/), each a Hugging Face directory. A stage that is run
// again goes on from its newest checkpoint, with the same bits.
#pragma once
#include <memory>

#include "comm/local.h"
#include "rl/checkpoint.h"
#include "rl/collector.h"
#include "rl/evaluation.h"
#include "rl/example_stream.h"
#include "rl/learner.h"
#include "rl/rollout.h"
#include "rl/scorer.h"
#include "rl/stage_data.h"
#include "run/config.h"
#include "run/metrics.h"
#include "run/run_directory.h"
#include "run/stop_signal.h"
#include "run/tensorboard.h"

namespace dsengine {

// Where each role's weights come from, resolved from the configuration and earlier stages.
struct StageInputs {
  std::filesystem::path actor, reference, critic;  // "": the role is not needed
  std::filesystem::path reward;                    // what a reward model that is trained starts from
  std::vector<std::filesystem::path> rewards;      // the model of each of the stage's reward sources
  bool random_init = false;                        // the actor's directory has no weights yet
  std::filesystem::path tokenizer;
  Json fingerprints = Json::object();  // of these directories, by role
};

struct StageContext {
  const PluginRegistry& registry;
  const Kernels& kernels;
  const StopSignal& stop;
};

enum class StageEnd { finished, stopped };

class StageRunner {
 public:
  StageRunner(const RunConfig& run, const StageConfig& stage, const StageInputs& inputs, const StageContext& context,
              const StageDirectory& directory);
  ~StageRunner();
  int64_t steps() const { return steps_; }
  StageEnd run();

 private:
  void load_roles();
  void load_data();
  void ask_critic();
  Json environment() const;
  // Compares what the stage works with and what it began with.
  void check_inputs() const;
  void resume();
  // The steps of a checkpoint are the first of this stage, if that is to be longer than it was.
  void check_length(const StageState& state) const;
  StepPlan plan(int64_t max_steps, int64_t epochs) const;
  StageEnd stopped(int64_t step) const;
  StageEnd run_steps();
  Json step(int64_t step);
  Experience next_records(int64_t step);
  Rollout rollout_with(const RolloutConfig& config, uint64_t seed) const;
  void load_mixture();
  void evaluate(int64_t step);
  void checkpoint(int64_t step);
  // Where a reward ends the run, or a stop comes while it is asked: the step in hand has changed nothing yet.
  void save_finished_steps();
  int64_t last_evaluation() const;
  void finish();
  ScoreMoments moments_of(const Model& model) const;
  bool from_rollouts() const { return algorithm_.needs().source == DSE_SOURCE_ROLLOUT; }
  int64_t items_per_step() const;

  const RunConfig& run_;
  const StageConfig& stage_;
  const StageInputs inputs_;
  const StageContext context_;
  const StageDirectory directory_;
  AlgorithmInstance algorithm_;
  TextModel text_;
  std::vector<TokenId> ends_;  // that the actor is saved with; none: its own
  std::filesystem::path critic_tokenizer_;
  Roles roles_;
  StageData data_;
  std::unique_ptr<ExampleStream> stream_;
  std::optional<StepPlan> plan_;
  std::unique_ptr<Collector> collector_;
  std::unique_ptr<Scheduler> scheduler_;        // of the actor's answers
  std::unique_ptr<ExampleStream> text_stream_;  // of the PTX mixture
  std::unique_ptr<Scorer> scorer_;
  LocalCommunicator ranks_;
  std::unique_ptr<Learner> learner_;
  Phases phases_;
  std::unique_ptr<MetricsLog> metrics_, evaluations_;
  std::unique_ptr<TensorBoardLog> tensorboard_;  // null: switched off
  uint64_t key_;                                 // names the stage's draws
  int64_t first_step_ = 0, steps_ = 0;
  int64_t finished_steps_ = 0, saved_steps_ = 0;
};

}  // namespace dsengine
