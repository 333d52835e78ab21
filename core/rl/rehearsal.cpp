#include "rl/rehearsal.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/philox.h"
#include "comm/local.h"
#include "memory/counting_allocator.h"
#include "rl/config_checks.h"
#include "rl/dealing.h"
#include "rl/evaluation.h"
#include "rl/example_stream.h"
#include "rl/generation_memory.h"
#include "rl/rollout.h"

namespace dsengine {

namespace {

constexpr int64_t kStepsLookedAt = 10000;  // for the one that reads most

int64_t tokens_of(const Example& e) {
  return int64_t(e.prompt.size() + e.answer.tokens.size() + e.rejected.tokens.size());
}

class Rehearsal {
 public:
  Rehearsal(const RunConfig& run, const StageConfig& stage, const StageInputs& inputs, const StageContext& context,
            const TextModel& text, const StageData& data)
      : stage_(stage),
        context_(context),
        data_(data),
        algorithm_(algorithm_of(context.registry, stage)),
        needs_(algorithm_.needs()),
        phases_(Ledger::meta()),
        stream_(data.records, run.seed, name_hash(stage.name)),
        plan_(data.records, run.seed, name_hash(stage.name), items_per_step(stage, needs_),
              {stage.max_steps, stage.epochs}),
        models_(run, stage, inputs, needs_, context, text),
        batching_(batching_of(stage, needs_)),
        epochs_(std::exchange(batching_.epochs, 1)),  // the others are like the first
        learner_(algorithm_, models_.roles(), batching_, phases_, context.ranks) {
    if (stage.ptx.coefficient > 0) learner_.mix(mixture_of(stage, data.texts, run.seed, name_hash(stage.name)));
    models_.let_go_with(phases_);
    for (size_t p = 0; p < kChoices<Phase>.size(); ++p)
      phases_.on_leave(Phase(p), [this, p] { count_seconds(Phase(p)); });
  }

  StagePlan run() {
    result_ = {.stage = stage_.name, .algorithm = stage_.algorithm, .steps = plan_.steps()};
    result_.held = Ledger::meta().now();
    Ledger::meta_offloaded().restart();
    for (const char* phase : kChoices<Phase>) result_.phases.push_back({.name = phase});
    const auto steps = telling_steps();
    if (stage_.rollout.keep_cache) fill_cache(steps);
    context_.kernels.take_seconds(), take_moved();
    phases_.restart();
    if (!steps.empty()) rehearse_step(steps[0]);
    for (size_t i = 1; i < steps.size(); ++i)
      uncounted([&] { rehearse_step(steps[i]); });  // seconds and movement are of the step that reads most
    models_.roles().each_trained([&](const RoleEntry&, const Role& role) {
      if (!role.average.empty()) (void)role.averaged();  // as it is saved
      for (size_t u = 0; role.optimizer->cut() && u < role.optimizer->units().size(); ++u)
        role.optimizer->read_moments(u, context_.ranks, [](const auto&, const auto&) {});  // in a checkpoint
    });
    for (size_t p = 0; p < kChoices<Phase>.size(); ++p) note_peak(Phase(p), result_.phases[p]);
    if (needs_.source == DSE_SOURCE_ROLLOUT) evaluate();
    result_.offloaded = Ledger::meta_offloaded().peak();
    return std::move(result_);
  }

 private:
  // What f does is no part of the step, but for the memory that it takes.
  template <class F>
  void uncounted(const F& f) {
    const auto phases = result_.phases;
    const Movement movement = result_.movement;
    f();
    result_.phases = phases, result_.movement = movement;
  }

  void count_seconds(Phase phase) {
    result_.phases[size_t(phase)].seconds += repeats_ * context_.kernels.take_seconds();
    result_.movement += repeats_ * take_moved();
  }

  Movement take_moved() {
    const Traffic traffic = models_.take_traffic();
    return {double(traffic.bytes), double(traffic.unpacked)};
  }

  static void note_peak(Phase phase, PhasePlan& to) {
    const Ledger& ledger = Ledger::meta();
    if (ledger.peak(phase) <= to.bytes) return;
    to.bytes = ledger.peak(phase);
    for (size_t t = 0; t < to.by_tag.size(); ++t) to.by_tag[t] = ledger.at_peak(phase, MemoryTag(t));
  }

  // Memory for keys and values that is kept is as large as whatever was generated has made it: an evaluation comes
  // first.
  void fill_cache(const std::vector<std::vector<const Example*>>& steps) {
    if (needs_.source != DSE_SOURCE_ROLLOUT) return;
    uncounted([&] {
      const auto prompts = evaluated_examples(data_.heldout, stage_.eval_rows);
      if (!prompts.empty()) generate(prompts, 1);
      if (stage_.rollout.replay.empty())
        for (const auto& items : steps) generate(items, stage_.rollout.samples_per_prompt);
    });
  }

  // All at once, where the stage's slots do not say less: perhaps more answers than in a step.
  void evaluate() {
    phases_.restart();
    uncounted([&] {
      const auto prompts = evaluated_examples(data_.heldout, stage_.eval_rows);
      if (!prompts.empty()) generate(prompts, 1), answered(prompts, 1);
    });
    PhasePlan& evaluation = result_.phases.emplace_back(PhasePlan{.name = "evaluation"});
    for (const Phase phase : {Phase::generate, Phase::score}) note_peak(phase, evaluation);
  }

  // What the step takes that reads most, and, where that is another, the one with the longest record: it sets what a
  // slot needs, and a micro-batch.
  std::vector<std::vector<const Example*>> telling_steps() {
    if (plan_.steps() == 0) return {};
    int64_t most = -1, longest = -1, heavy = 0, with_longest = 0;
    const auto items_of = [&](int64_t step) {
      std::vector<const Example*> items;
      for (int64_t i = 0; i < plan_[step].count; ++i) items.push_back(&stream_[plan_[step].first + uint64_t(i)]);
      return items;
    };
    for (int64_t s = 0; s < std::min(plan_.steps(), kStepsLookedAt); ++s) {
      int64_t tokens = 0;
      for (const auto* example : items_of(s)) {
        const int64_t own = tokens_of(*example);
        if (own > longest) longest = own, with_longest = s;
        tokens += own;
      }
      if (tokens > most) most = tokens, heavy = s;
    }
    std::vector<std::vector<const Example*>> steps{items_of(heavy)};
    if (with_longest != heavy) steps.push_back(items_of(with_longest));
    return steps;
  }

  void rehearse_step(const std::vector<const Example*>& items) {
    repeats_ = 1;
    const bool rollouts = needs_.source == DSE_SOURCE_ROLLOUT;
    if (rollouts && stage_.rollout.replay.empty()) generate(items, stage_.rollout.samples_per_prompt);
    Experience e = rollouts ? answered(items, stage_.rollout.samples_per_prompt) : experience_of(items, needs_.source);
    train(e);
  }

  // Answers as long as they may become: the prompts are read, and each slot is at its first token. The memory for keys
  // and values is taken whole by then, and each later token takes what the first one does.
  void generate(const std::vector<const Example*>& all, int64_t samples) {
    std::vector<const Example*> prompts;
    const auto own = dealt_answers(all, samples, stage_.rollout, context_.ranks.size())[0];
    for (size_t i = 0; i < own.size(); i += size_t(samples)) prompts.push_back(all[size_t(own[i] / samples)]);
    if (prompts.empty()) return;
    Model& actor = models_.roles().actor->model;
    if (!scheduler_) {
      scheduler_.emplace(actor, limits_of(stage_.rollout));
      memory_.emplace(phases_, *scheduler_, actor, stage_.rollout);
    }
    Scheduler& scheduler = *scheduler_;
    const int64_t answers = int64_t(prompts.size()) * samples;
    const int64_t slots = std::min(answers, limits_of(stage_.rollout).slots);
    const auto phase = phases_.enter(Phase::generate);
    std::vector<RequestId> ids;
    for (const auto* prompt : prompts)
      ids.push_back(scheduler.submit({.prompt = prompt->prompt,
                                      .max_new_tokens = stage_.rollout.max_response_length,
                                      .samples = samples,
                                      .sampling = sampling_of(stage_.rollout)}));
    // Until every slot is taken, or every prompt has been read: short answers may end before the last ones begin.
    double read = 0;
    Movement read_moved;
    for (bool full = false; !full && !scheduler.all_read();) {
      const auto told = int64_t(scheduler.step().size());
      full = std::max(told, scheduler.in_flight()) >= slots;
      read += context_.kernels.take_seconds(), read_moved += take_moved();
    }
    if (!scheduler.idle()) scheduler.step();
    const double decoded = context_.kernels.take_seconds();
    const Movement decoded_moved = take_moved();
    for (const auto id : ids) scheduler.cancel(id);
    const int64_t rounds = (answers + slots - 1) / slots;
    const auto waves = double(rounds), later = double(stage_.rollout.max_response_length - 1);
    result_.phases[size_t(Phase::generate)].seconds += waves * (read + later * decoded);
    read_moved += later * decoded_moved;
    result_.movement += waves * read_moved;
  }

  // Rows of such answers, scored.
  Experience answered(const std::vector<const Example*>& prompts, int64_t samples) {
    const auto size = size_t(stage_.rollout.max_response_length);
    Experience e;
    std::vector<std::span<const int32_t>> sequences;
    for (size_t p = 0; p < prompts.size(); ++p)
      for (int64_t s = 0; s < samples; ++s) {
        ExperienceRow row{prompts[p]->prompt, int64_t(prompts[p]->prompt.size()), std::vector<float>(size)};
        row.critic_prompt = prompts[p]->critic_prompt;
        row.tokens.resize(row.tokens.size() + size);
        e.add_row(std::move(row), int64_t(p), Finish::length, 1, std::vector<uint8_t>(size, 1));
        sequences.emplace_back(e.rows.back()->tokens);
      }
    const auto phase = phases_.enter(Phase::score);
    std::vector<RowUnit> units;
    for (size_t p = 0; p < prompts.size(); ++p) {
      const int64_t first = int64_t(p) * samples;
      units.push_back({first, first + samples, samples * int64_t(prompts[p]->prompt.size() + size)});
    }
    const auto rows = deal(units, context_.ranks.size(), 0).rows;
    std::vector<std::span<const int32_t>> own;
    for (const auto row : rows[0]) own.push_back(sequences[size_t(row)]);
    for (const auto& reward : models_.rewards())
      if (reward) last_values(reward->model, own);
    return e;
  }

  void train(Experience& e) {
    learner_.allocate(e);
    const Charge columns(Ledger::meta(), MemoryTag::columns, e.bytes());
    MetricMeans means;
    learner_.fill_columns(e, means, true);
    repeats_ = double(epochs_);
    learner_.update(
        e, 0, 0, [](const OptimizerConfig& o) { return o.learning_rate; }, means);
  }

  const StageConfig& stage_;
  const StageContext& context_;
  const StageData& data_;
  AlgorithmInstance algorithm_;
  const dse_needs needs_;
  Phases phases_;
  ExampleStream stream_;
  const StepPlan plan_;
  StageModels models_;
  Batching batching_;
  int64_t epochs_;
  Learner learner_;
  std::optional<Scheduler> scheduler_;
  std::optional<GenerationMemory> memory_;
  double repeats_ = 1;  // of what is counted now, in a step
  StagePlan result_;
};

}  // namespace

const PhasePlan& StagePlan::largest() const { return *std::ranges::max_element(phases, {}, &PhasePlan::bytes); }

double StagePlan::seconds() const {
  double sum = 0;
  for (const auto& phase : phases) sum += phase.seconds;
  return sum;
}

StagePlan rehearse(const RunConfig& run, const StageConfig& stage, const StageInputs& inputs,
                   const StageContext& context, const TextModel& text, const StageData& data) {
  DSE_CHECK(!context.kernels.device().has_values(), "a rehearsal on a device");
  count_meta_memory();
  return Rehearsal(run, stage, inputs, context, text, data).run();
}

}  // namespace dsengine
