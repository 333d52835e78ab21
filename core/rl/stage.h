// One stage of a run: an algorithm trains its roles on records, pairs or rollouts, step by step, with
// metrics, evaluation, checkpoints and resume.
//
//   StageRunner stage(config, stage_config, inputs, {registry, kernels, stop}, directory);
//   if (stage.run() == StageEnd::stopped) return 0;      // a signal came; the checkpoint is written
//
// Files: metrics.jsonl (a line a step), eval.jsonl, tensorboard/, checkpoints/, and at the end model/ (and critic/;
// with ema_decay ema/ and critic_ema/ too, with a LoRA adapter/), each a Hugging Face directory. A stage that is run
// again goes on from its newest checkpoint, with the same bits.
//
// Of several ranks (StageContext) each runs this with the same arguments; rank 0 alone has a directory that it writes.
#pragma once
#include <memory>
#include <optional>

#include "comm/communicator.h"
#include "rl/checkpoint.h"
#include "rl/experience_source.h"
#include "rl/learner.h"
#include "rl/stage_logs.h"
#include "rl/stage_models.h"

namespace dsengine {

enum class StageEnd { finished, stopped };

class StageRunner {
 public:
  StageRunner(const RunConfig& run, const StageConfig& stage, const StageInputs& inputs, const StageContext& context,
              const StageDirectory& directory);
  ~StageRunner();
  int64_t steps() const { return plan_.steps(); }
  StageEnd run();

 private:
  StepPlan plan_of(int64_t max_steps, int64_t epochs) const;
  // The tokens that the actor is saved with as its ends; none: its own.
  std::vector<TokenId> ends() const;
  void fit_data();

  void resume();
  void go_on(const std::optional<FoundCheckpoint>& found);
  StageEnd run_steps();
  void evaluate_where_due();
  Json step(int64_t step);
  void evaluate(int64_t step);
  void checkpoint(int64_t step);
  // Where a reward ends the run, or a stop comes while it is asked: the step in hand has changed nothing yet.
  void save_finished_steps();
  void finish();
  bool stop_asked();
  bool evaluates_after(int64_t step) const { return stage_.eval_every > 0 && step % stage_.eval_every == 0; }
  StageEnd stopped(int64_t step) const;
  bool from_rollouts() const { return algorithm_.needs().source == DSE_SOURCE_ROLLOUT; }

  const RunConfig& run_;
  const StageConfig& stage_;
  const StageInputs inputs_;
  const StageContext context_;
  const StageDirectory directory_;
  const uint64_t key_;  // names the stage's draws
  Communicator& ranks_;
  Phases phases_;
  AlgorithmInstance algorithm_;
  TextModel text_;
  StageData data_;
  const StepPlan plan_;
  const std::vector<TokenId> ends_;
  StageModels models_;
  Learner learner_;
  std::unique_ptr<ExperienceSource> source_;
  std::optional<StageLogs> logs_;  // since resume()
  int64_t first_step_ = 0, finished_steps_ = 0, saved_steps_ = 0;
};

}  // namespace dsengine
