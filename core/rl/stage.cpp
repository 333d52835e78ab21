#include "rl/stage.h"

#include <spdlog/spdlog.h>

#include <algorithm>
#include <chrono>

#include "base/check.h"
#include "base/philox.h"
#include "comm/world.h"
#include "memory/card_memory.h"
#include "rl/answer_ends.h"
#include "rl/config_checks.h"
#include "rl/stage_checks.h"
#include "run/progress.h"

namespace dsengine {

namespace {

TextModel text_of(const StageInputs& inputs) {
  const auto actor = inputs.of(DSE_ACTOR);
  return TextModel::load(inputs.tokenizer, actor.empty() ? inputs.of(DSE_REWARD) : actor);
}

// Seconds since 1970.
double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

StageRunner::StageRunner(const RunConfig& run, const StageConfig& stage, const StageInputs& inputs,
                         const StageContext& context, const StageDirectory& directory)
    : run_(run),
      stage_(stage),
      inputs_(inputs),
      context_(context),
      directory_(directory),
      key_(name_hash(stage.name)),
      ranks_(context.ranks),
      phases_(ledger_of(context.kernels.device())),
      algorithm_(algorithm_of(context.registry, stage)),
      text_(text_of(inputs)),
      data_(StageData::load(stage, algorithm_.needs().source, context.registry, text_, run.seed)),
      plan_(plan_of(stage.max_steps, stage.epochs)),
      ends_(ends()),
      models_(run, stage, inputs_, algorithm_.needs(), context, text_),
      learner_(algorithm_, models_.roles(), batching_of(stage_, algorithm_.needs()), phases_, ranks_) {
  models_.let_go_with(phases_);
  fit_data();
  if (from_rollouts())
    source_ = std::make_unique<RolloutSource>(stage, data_, run.seed, key_, algorithm_.needs(), models_,
                                              context.registry, text_, phases_, ranks_);
  else
    source_ = std::make_unique<RecordSource>(stage, data_, run.seed, key_, items_per_step(stage, algorithm_.needs()),
                                             algorithm_, learner_);
  if (stage.ptx.coefficient > 0) learner_.mix(mixture_of(stage, data_.texts, run.seed, key_));
}

StageRunner::~StageRunner() = default;

StepPlan StageRunner::plan_of(int64_t max_steps, int64_t epochs) const {
  return {data_.records, run_.seed, key_, items_per_step(stage_, algorithm_.needs()), {max_steps, epochs}};
}

std::vector<TokenId> StageRunner::ends() const {
  if (!(algorithm_.needs().trained & DSE_ACTOR)) return {};
  return from_rollouts() ? rollout_ends(stage_.name, stage_.rollout, text_)
                         : taught_ends(stage_.name, data_.records, text_);
}

// The records as the models read them.
void StageRunner::fit_data() {
  const Roles& roles = models_.roles();
  if (const auto* text = models_.critic_text())
    for (auto* set : {&data_.records, &data_.heldout})
      set->ask_critic(*text, fmt::format("the critic {}", inputs_.of(DSE_CRITIC).string()));
  if (const auto& role = roles.actor ? roles.actor : roles.reward)
    data_.check_fit(stage_, algorithm_.needs().source, role->model.graph(), text_, inputs_.tokenizer);
  if (roles.critic && from_rollouts()) data_.check_critic(stage_, roles.critic->model.graph());
}

bool StageRunner::stop_asked() {
  const Communicator::Purpose purpose(ranks_, "a wish to stop");
  return ranks_.agree(context_.stop.requested());
}

// Rank 0 chooses the checkpoint, and alone puts the folder in order.
void StageRunner::resume() {
  std::optional<FoundCheckpoint> found;
  ranks_.together([&] {
    if (ranks_.rank() == 0) found = newest_checkpoint(directory_);
  });
  const std::string chosen =
      ranks_.broadcast_bytes(found ? fmt::format("{} {}", found->state.step, found->manifest.dump()) : "", 0);
  ranks_.together([&] {
    if (ranks_.rank() == 0 || chosen.empty()) return;
    found = checkpoint_of(directory_, std::stoll(chosen));
    DSE_CHECK_USER(fmt::format("{} {}", found->state.step, found->manifest.dump()) == chosen,
                   "{} is another on rank {} than on rank 0: ranks read one folder", found->path.string(),
                   ranks_.rank());
  });
  ranks_.zero_first([&] { go_on(found); });
}

void StageRunner::go_on(const std::optional<FoundCheckpoint>& found) {
  logs_.emplace(directory_);
  StageState state;
  if (found) {
    state = found->state;
    check_length(stage_, directory_, state, plan_, plan_of(state.max_steps, state.epochs), models_.roles());
    load_checkpoint(*found, models_.roles());
    if (directory_.writes()) prune_checkpoints(directory_, stage_.keep_checkpoints);
    algorithm_.load(state.algorithm_state);
    warn_of_environment(state.environment,
                        environment_of(context_.kernels, ranks_, compute_type(run_, context_.kernels)));
    spdlog::info("resume stage={} step={} from={}", stage_.name, state.step, found->path.string());
  }
  if (const auto done = directory_.summary()) {  // to be made longer
    DSE_CHECK_USER(state.step == done->value("steps", int64_t(-1)),
                   "stage '{}' ended, and its last checkpoint is gone: it cannot go on to {} steps; delete {} to train "
                   "it anew",
                   stage_.name, steps(), directory_.path().string());
    directory_.reopen();
  }
  first_step_ = finished_steps_ = saved_steps_ = state.step;
  logs_->begin(state.metrics_offset, state.eval_offset, run_.tensorboard);
}

StageEnd StageRunner::stopped(int64_t step) const {
  spdlog::info("stopped stage={} step={} note=\"run the same command to go on\"", stage_.name, step);
  return StageEnd::stopped;
}

StageEnd StageRunner::run() {
  if (stop_asked()) return stopped(0);
  const Json inputs = stage_fingerprints(stage_, inputs_, data_, models_.roles(), context_.registry);
  check_alike(ranks_, "models, records or plugins", inputs.dump() + context_.kernels.description());
  ranks_.zero_first([&] { directory_.check_inputs(inputs); });
  resume();
  source_->set_watch({.stop = &context_.stop,
                      .save =
                          [this] {
                            const at::NoGradGuard no_grad;  // on the watch's thread
                            if (!models_.cut()) save_finished_steps();
                          },
                      .told_elsewhere = ranks_.rank() > 0});
  // No rank ends before the one that saves has done so: mpirun would end that one too.
  const auto save = [&] { ranks_.together([&] { save_finished_steps(); }); };
  try {
    return run_steps();
  } catch (const StepLeft&) {
    save();
    return stopped(finished_steps_);
  } catch (const RewardError&) {
    save();
    throw;
  }
}

void StageRunner::save_finished_steps() {
  if (finished_steps_ > saved_steps_) checkpoint(finished_steps_);
}

// One that was left by a stop, or that a stage which was made longer has had at its end only.
void StageRunner::evaluate_where_due() {
  const bool due = first_step_ == 0 || (first_step_ < steps() && evaluates_after(first_step_));
  if (ranks_.broadcast_bytes(due && logs_->last_evaluation() < first_step_ ? "due" : "", 0) == "due")
    evaluate(first_step_);
}

StageEnd StageRunner::run_steps() {
  spdlog::info("stage name={} algorithm={} steps={} records={} heldout={}", stage_.name, stage_.algorithm, steps(),
               data_.records.size(), data_.heldout.size());
  if (stop_asked()) return stopped(first_step_);
  evaluate_where_due();
  Progress progress(
      stage_.name, steps(),
      {.first_step = first_step_, .log_every = stage_.log_every, .terminal = ranks_.rank() == 0 ? STDERR_FILENO : -1});
  for (int64_t s = first_step_; s < steps(); ++s) {
    if (s == first_step_ && stop_asked()) return stopped(s);  // after a step it is asked below
    Json line = step(s);
    Progress::Metrics shown;
    for (const char* name : {"loss", "accuracy", "reward", "kl", "response_length"})
      if (line.contains(name) && line[name].is_number()) shown.emplace_back(name, line[name].get<double>());
    directory_.check_present();
    logs_->append_metrics(line);
    finished_steps_ = s + 1;
    const bool last = s + 1 == steps();
    if (!last && evaluates_after(s + 1)) evaluate(s + 1);
    const bool stops = stop_asked();
    if (last || stops || (stage_.checkpoint_every > 0 && (s + 1) % stage_.checkpoint_every == 0))
      ranks_.together([&] { checkpoint(s + 1); });
    progress.update(s + 1, shown);
    if (stops && !last) return stopped(s + 1);
  }
  progress.finish();
  finish();
  return StageEnd::finished;
}

Json StageRunner::step(int64_t step) {
  phases_.restart();  // loading, evaluations and checkpoints are no part of a step
  Ledger::offloaded().restart();
  models_.take_traffic();
  Json line{{"stage", stage_.name}, {"step", step + 1}};
  MetricMeans means;
  Experience e = source_->next(step, plan_[step], means);
  learner_.allocate(e);
  const Charge columns(Ledger::host(), MemoryTag::columns, e.bytes());
  learner_.fill_columns(e, means, true);
  prepare(algorithm_, e, means);
  learner_.update(
      e, run_.seed ^ key_, uint64_t(step), [&](const OptimizerConfig& o) { return learning_rate_at(o, step, steps()); },
      means);
  means.write_to(line);
  int64_t tokens = 0;
  for (const auto& row : e.rows) tokens += int64_t(row->tokens.size());
  line["tokens"] = tokens;
  phases_.write_to(line);
  if (const Traffic moved = models_.take_traffic(); moved.bytes > 0 || moved.unpacked > 0) {
    line["moved_mb"] = double(moved.bytes) / (1 << 20);
    line["seconds_moving"] = moved.seconds;
  }
  if (const int64_t offloaded = Ledger::offloaded().peak(); offloaded > 0)
    line["memory_offloaded_mb"] = double(offloaded) / (1 << 20);
  line["tokens_per_second"] = double(tokens) / std::max(1e-9, line["seconds"].get<double>());
  line["peak_memory_mb"] = peak_resident_mb();
  line["wall_time"] = wall_time();
  return line;
}

void StageRunner::evaluate(int64_t step) {
  if (data_.heldout.size() == 0) return;
  Json line{{"stage", stage_.name}, {"step", step}};
  line.update(source_->evaluate());
  line["wall_time"] = wall_time();
  logs_->append_evaluation(line);
  Json shown = line;
  shown.erase("samples");
  spdlog::info("eval {}", shown.dump());
}

// Where a reward does not come back, the watch's thread calls it: no collective, unless ranks own parts of moments.
void StageRunner::checkpoint(int64_t step) {
  save_checkpoint(directory_, stage_.keep_checkpoints,
                  {step, stage_.max_steps, stage_.epochs, logs_->metrics_offset(), logs_->eval_offset(),
                   algorithm_.save(), environment_of(context_.kernels, ranks_, compute_type(run_, context_.kernels))},
                  models_.roles(), ranks_);
  saved_steps_ = step;
}

void StageRunner::finish() {
  evaluate(steps());
  const Communicator::Purpose purpose(ranks_, "what the stage leaves");
  ranks_.together([&] {
    directory_.check_present();
    if (!directory_.writes()) return;
    models_.save(directory_, ends_, algorithm_.needs().source == DSE_SOURCE_PAIRS ? &data_.records : nullptr);
    const auto& actor = models_.roles().actor;
    directory_.finish({{"stage", stage_.name},
                       {"algorithm", stage_.algorithm},
                       {"steps", steps()},
                       {"epochs", stage_.epochs},
                       {"max_steps", stage_.max_steps},
                       {"kind", actor && actor->optimizer ? "language" : "value"}});
  });
}

}  // namespace dsengine
