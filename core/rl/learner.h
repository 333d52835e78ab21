// One training step: an algorithm's loss on rows of answers, through the models it trains, to their weights.
//
//   Learner learner(algorithm, {.actor = &actor, .critic = &critic}, batching, phases, ranks);
//   learner.allocate(experience), learner.fill_columns(experience, means, true);  // old_logp, old_value, ref_logp
//   prepare(algorithm, experience, means);  learner.update(experience, rows, learning rates, means);
//
// The loss is divided by counts over the whole minibatch, known before its first micro-batch, so that
// micro_batch_size changes no loss, gradient or metric beyond rounding. The probability ratio is exactly 1 before the
// first update: old log-probabilities are the rollout's where those are a training forward's bit for bit
// (Model::exact_rollouts), else they and the other old columns are computed in the very micro-batches of the first
// epoch. Where that epoch is one micro-batch, they are the training forward's itself, which is made once.
//
// Every rank has the whole experience, makes the same minibatches, computes its own rows of each (rl/dealing.h), in as
// many micro-batches as the others, and ends with the same columns, metrics, gradients and weights. Where one fails,
// all do. Each has an algorithm, models and a learner of its own.
#pragma once
#include <functional>
#include <optional>

#include "memory/phases.h"
#include "plugin/instance.h"
#include "rl/agreement.h"
#include "rl/batching.h"
#include "rl/dealing.h"
#include "rl/experience.h"
#include "rl/forward.h"
#include "rl/objective.h"
#include "rl/role.h"

namespace dsengine {

// Language-model loss on texts, added to the actor's at every update: coefficient times the mean over its tokens of
// -log p (PPO-ptx; Ouyang et al. 2022).
struct TextMixture {
  double coefficient;
  std::function<Experience(int64_t update)> texts;  // by the number of updates before
};

// What is told of a minibatch beside its loss and KL.
struct MinibatchReport {
  bool entropy = false;  // of the actor
  bool rollout = false;  // how far its forward is from what the rollout told: the weights are those that answered
};

class Learner {
 public:
  Learner(AlgorithmInstance& algorithm, Roles& roles, Batching batching, Phases& phases, Communicator& ranks);

  // Rows of the minibatches of an epoch, in order; pairs, and groups where the algorithm compares answers, stay
  // together (a group larger than mini_batch_size is a minibatch). Epoch 0 takes the rows as they are.
  std::vector<std::vector<int64_t>> minibatches(const Experience& experience, uint64_t seed, uint64_t step,
                                                int64_t epoch) const;
  // Sizes the columns that the algorithm asks for, and those that a correction reads.
  void allocate(Experience& experience) const;
  // Fills the old and reference columns among them, and means of the KL and of the correction's ratios. then_update:
  // update() of the same experience comes next; a training forward that fills a column is kept for it.
  void fill_columns(Experience& experience, MetricMeans& means, bool then_update);
  // All epochs and minibatches; `learning_rate` maps a role's settings to the rate of this step. The first minibatch's
  // training forward is compared with what the rollout told of the same tokens.
  void update(Experience& experience, uint64_t seed, uint64_t step,
              const std::function<double(const OptimizerConfig&)>& learning_rate, MetricMeans& means);
  // Loss and metrics without an update.
  double evaluate(Experience& experience, MetricMeans& means);
  void mix(TextMixture mixture) { mixture_ = std::move(mixture); }

  struct Accumulated {
    double loss = 0;
    double kl = 0;  // mean over tokens from the sampling policy to the present one (k3), where both are columns
  };
  // Forward and backward of one minibatch; gradients, of this rank's rows, are added to the models'.
  Accumulated accumulate(Experience& minibatch, MetricMeans& means, bool train, const MinibatchReport& report = {});

 private:
  // DSE_COLUMN_…, of the algorithm and of the correction.
  uint32_t columns() const;
  // Some rows of an experience, dealt.
  Dealing dealt(const Experience& experience, const std::vector<int64_t>& rows) const;
  // Of models on the meta device the loss is not asked for: their updates are gone through for their memory.
  bool has_values() const { return roles_.device().has_values(); }
  // Whether updates on it tell the actor's entropy.
  bool tells_entropy(const Experience& experience) const;
  // ahead: by the training forward of these rows, which is kept.
  void fill_part(Experience& experience, const std::vector<int64_t>& rows, bool told_logp, bool ahead);
  // Whether old_logp is what the rollout told.
  bool takes_rollout_logp(const Experience& experience) const;
  // A micro-batch between its forward, which fills its columns, and its backward.
  struct Part {
    Experience rows;
    Outputs actor{}, critic{}, reward{};
  };
  Part forward_part(const Experience& minibatch, const std::vector<int64_t>& rows, const MinibatchReport& report,
                    MetricSink& means);
  void backward_part(const Part& part, const WeightedLoss& loss);
  // This rank's loss of a minibatch, and its sum of the KL; `ranks_.together` where there is no collective.
  Accumulated accumulate_rows(Experience& minibatch, const Dealing& dealing, MetricSink& means, bool train,
                              const MinibatchReport& report);
  Accumulated accumulate_raw(Experience& minibatch, const Dealing& dealing, MetricSink& means, bool train,
                             const MinibatchReport& report);
  // The mixture's loss, its gradient added to the actor's.
  double accumulate_texts();
  bool update_on(Experience& minibatch, const std::function<double(const OptimizerConfig&)>& learning_rate,
                 MetricMeans& means, const MinibatchReport& report);

  AlgorithmInstance& algorithm_;
  Roles& roles_;
  Batching batching_;
  Phases& phases_;
  Communicator& ranks_;
  std::optional<TextMixture> mixture_;
  struct {
    Outputs actor, critic;
  } ahead_;  // training forwards made before their loss, until it is computed
};

}  // namespace dsengine
