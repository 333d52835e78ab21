// The actor answers prompts, the reward judges: rows of experience.
//
//   Rollout rollout(scheduler_of_the_actor, text, config.rollout, seed);
//   std::vector<Answered> answers = rollout.generate(prompts, step);
//   Experience e = rollout.experience(answers, scores);
//
// Of several ranks each answers its share of the prompts, and every rank gets all answers, in the order of the prompts.
#pragma once
#include <filesystem>
#include <functional>

#include "comm/local.h"
#include "generate/scheduler.h"
#include "rl/examples.h"
#include "rl/experience.h"
#include "rl/scorer.h"
#include "text/stops.h"

namespace dsengine {

struct Answered {
  const Example* example;
  int64_t prompt_id;  // position of the prompt in the step
  Generation answer;
};

// How a rollout's tokens are drawn, and how many answers at once.
SamplingOptions sampling_of(const RolloutConfig& config);
Scheduler::Limits limits_of(const RolloutConfig& config);

// The answers that each rank makes, by their places among all, [prompts * samples]: a prompt's are one rank's, which
// reads it once for all of them.
std::vector<std::vector<int64_t>> dealt_answers(const std::vector<const Example*>& prompts, int64_t samples,
                                                const RolloutConfig& config, int64_t ranks);

class Rollout {
 public:
  Rollout(Scheduler& scheduler, const TextModel& text, const RolloutConfig& config, uint64_t seed,
          Communicator& ranks = alone());

  // samples_per_prompt answers to each prompt, adjacent. Draws depend on (seed, step, prompt's place, sample).
  std::vector<Answered> generate(const std::vector<const Example*>& prompts, uint64_t step) const;
  // Greedy answers, one a prompt.
  std::vector<Answered> generate_greedy(const std::vector<const Example*>& prompts) const;

  // What a reward sees of the answers.
  std::vector<ScoredAnswer> to_score(const std::vector<Answered>& answers) const;
  // Rows whose score is a number; the others are dropped.
  static Experience experience(const std::vector<Answered>& answers, const std::vector<AnswerScore>& scores);

 private:
  std::vector<Answered> run(const std::vector<const Example*>& prompts, int64_t samples,
                            const SamplingOptions& sampling, uint64_t step) const;
  std::filesystem::path file_of(const std::filesystem::path& folder, uint64_t step) const;
  void record(const std::vector<Answered>& answers, uint64_t step) const;
  std::vector<Answered> replay(const std::vector<const Example*>& prompts, uint64_t step) const;

  Scheduler& scheduler_;
  const TextModel& text_;
  const RolloutConfig& config_;
  const Stops stops_;
  uint64_t seed_;
  Communicator& ranks_;
};

}  // namespace dsengine
