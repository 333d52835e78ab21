#include "rl/collector.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/philox.h"

namespace dsengine {

namespace {

constexpr float kEqualScores = 1e-6f;

// Moves the groups whose scores differ to `kept`, with those scores; returns how many groups' did not.
int64_t keep_groups_with_signal(std::vector<Answered>& answers, std::vector<AnswerScore>& scores,
                                std::vector<Answered>& kept, std::vector<AnswerScore>& kept_scores) {
  int64_t dropped = 0;
  for (size_t first = 0, last = 0; first < answers.size(); first = last) {
    float low = INFINITY, high = -INFINITY;
    while (last < answers.size() && answers[last].prompt_id == answers[first].prompt_id) {
      const float score = scores[last].total;
      if (!std::isnan(score)) low = std::min(low, score), high = std::max(high, score);
      ++last;
    }
    if (!(high - low > kEqualScores)) {
      ++dropped;
      continue;
    }
    for (size_t i = first; i < last; ++i) {
      kept.push_back(std::move(answers[i]));
      kept_scores.push_back(std::move(scores[i]));
    }
  }
  return dropped;
}

}  // namespace

Collector::Collector(const RolloutConfig& config, int64_t group_size, const ExampleSet& data, uint64_t seed,
                     uint64_t stage_key)
    : config_(config),
      group_size_(group_size),
      prompts_(data, seed, stage_key),
      replacements_(data, seed, stage_key ^ name_hash("replacements")) {}

Collector::Round Collector::answer(ExampleStream& stream, uint64_t first, int64_t count, int64_t first_id,
                                   uint64_t draws, const Rollout& rollout, Scorer* scorer, Phases& phases) {
  std::vector<const Example*> prompts;
  for (int64_t i = 0; i < count; ++i) prompts.push_back(&stream[first + uint64_t(i)]);
  Round round;
  {
    const auto phase = phases.enter(Phase::generate);
    round.answers = rollout.generate(prompts, draws);
  }
  round.scores.resize(round.answers.size());
  if (scorer) {
    const auto phase = phases.enter(Phase::score);
    round.scores = scorer->score(rollout.to_score(round.answers));
  }
  round.failed =
      std::count_if(round.scores.begin(), round.scores.end(), [](const AnswerScore& s) { return std::isnan(s.total); });
  for (auto& a : round.answers) a.prompt_id += first_id;
  return round;
}

Experience Collector::collect(int64_t step, const StepPlan::Items& items, const Rollout& rollout, Scorer* scorer,
                              Phases& phases, MetricMeans& means) {
  const int64_t count = config_.batch_size;
  Round all = answer(prompts_, items.first, items.count, 0, uint64_t(step), rollout, scorer, phases);
  int64_t failed = all.failed, answered = int64_t(all.answers.size());
  if (config_.dynamic_sampling) {
    Round kept;
    double replaced = 0;
    int64_t missing = keep_groups_with_signal(all.answers, all.scores, kept.answers, kept.scores);
    for (int64_t r = 0; r < config_.max_refills && missing > 0; ++r) {
      replaced += double(missing);
      const auto round = uint64_t(step * config_.max_refills + r);
      // Draws of their own: the high bits tell the round.
      Round more = answer(replacements_, round * uint64_t(count), missing, count * (r + 1),
                          uint64_t(step) | uint64_t(r + 1) << 40, rollout, scorer, phases);
      failed += more.failed, answered += int64_t(more.answers.size());
      all = std::move(more);
      missing = keep_groups_with_signal(all.answers, all.scores, kept.answers, kept.scores);
    }
    // Where nothing says anything, the last answers stand: a step without a gradient, not an error.
    if (!kept.answers.empty()) all = std::move(kept);
    means.add("groups_replaced", replaced);
  }
  Experience e = Rollout::experience(all.answers, all.scores);
  if (e.row_count() == 0)
    throw RewardError(fmt::format("step {}: the reward failed on all {} answers", step + 1, answered));
  for (const auto& score : all.scores)
    if (scorer && !std::isnan(score.total)) scorer->add_means(score, means);
  means.add("reward_failed", double(failed));
  e = e.whole_groups(group_size_);
  if (e.row_count() == 0)
    throw RewardError(fmt::format("step {}: the reward failed on {} answers, which leaves no group of {}", step + 1,
                                  failed, group_size_));
  for (int64_t r = 0; r < e.row_count(); ++r) {
    means.add("reward", e.score[size_t(r)]);
    means.add("response_length", double(e.rows[size_t(r)]->answer_size()));
    means.add("eos_fraction", e.finish[size_t(r)] != int32_t(Finish::length));
  }
  return e;
}

}  // namespace dsengine
