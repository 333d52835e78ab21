// The reward of answers: reward plugins with the reward models they ask for, and their weighted sum.
//
//   Scorer scorer(sources, load_reward_models(sources, folders, registry, kernels, actor_text), registry);
//   std::vector<AnswerScore> scores = scorer.score(rollout.to_score(answers));   // total NaN: could not be scored
//
// Of several ranks each asks for its share of the answers, and every rank gets all scores.
//
// A reward model reads the actor's ids; one with words of its own (another vocabulary, another chat template) is asked
// in them: it reads the conversation and the reply, written and encoded as its own directory has it.
#pragma once
#include <memory>
#include <vector>

#include "base/check.h"
#include "base/finish.h"
#include "comm/local.h"
#include "plugin/instance.h"
#include "rl/call_watch.h"
#include "rl/examples.h"
#include "rl/metric_means.h"
#include "rl/reward_model.h"
#include "rl/reward_rules.h"
#include "run/config.h"

namespace dsengine {

struct ScoredAnswer {
  std::string prompt, reply, metadata;
  std::vector<int32_t> tokens;  // prompt and answer
  int64_t answer_size = 0;
  Finish finish = Finish::eos;
  std::vector<ChatMessage> turns{};  // of the prompt, where it is a conversation
};

struct AnswerScore {
  float total = 0;             // NaN: could not be scored
  std::vector<float> parts{};  // of each source, before its weight
};

// A reward ends the run: it failed as a whole, or more often than the configuration allows.
struct RewardError : UserError {
  using UserError::UserError;
};
// A stop was asked for while answers were scored. The step in hand is left: nothing but answers was made in it.
struct StepLeft {};

class Scorer {
 public:
  // models: each source's, null where its plugin wants none.
  Scorer(const std::vector<RewardSource>& sources, std::vector<std::shared_ptr<const RewardModel>> models,
         const PluginRegistry& registry, Communicator& ranks = alone());
  // What a call of a reward is watched with, but for its deadline; a stop throws StepLeft.
  void set_watch(CallWatch::Rules watch) { watch_ = std::move(watch); }
  // The sum's weighted total is NaN where any source failed: gave no score that is finite in float32.
  std::vector<AnswerScore> score(const std::vector<ScoredAnswer>& answers);
  // Adds each source's mean, unweighted, as reward_<name>, where there are several.
  void add_means(const AnswerScore& score, MetricMeans& means) const;

 private:
  struct Source {
    std::string name;
    double weight;
    RewardRules rules;
    RewardInstance reward;
    std::shared_ptr<const RewardModel> model{};
    int64_t failures_in_a_row = 0;
  };
  std::vector<float> score(Source& source, const std::vector<ScoredAnswer>& answers) const;
  // Of these alone, on this rank: what its model says, and then the plugin.
  static std::vector<double> model_scores(const Source& source, const std::vector<const ScoredAnswer*>& answers);
  std::vector<float> ask(Source& source, const std::vector<const ScoredAnswer*>& answers,
                         const std::vector<double>& model_scores) const;
  // Makes scores that are none NaN, tells of them, and ends the run where the rules say so.
  static void note_failures(Source& source, std::vector<float>& scores);
  void leave_where_stopped() const;
  static std::vector<int32_t> tokens_of(const Source& source, const ScoredAnswer& answer);

  std::vector<Source> sources_;
  CallWatch::Rules watch_;
  Communicator& ranks_;
};

}  // namespace dsengine
