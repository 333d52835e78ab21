#include "rl/evaluation.h"

#include <algorithm>
#include <cmath>

#include "rl/example_stream.h"

namespace dsengine {

namespace {

constexpr size_t kShownSamples = 4;

Json summarise(const Rollout& rollout, const std::vector<Answered>& answers, Scorer* scorer, bool greedy,
               Json& samples) {
  const std::string prefix = greedy ? "eval_greedy_" : "eval_";
  const auto scored = rollout.to_score(answers);
  MetricMeans means;
  const auto scores = scorer ? scorer->score(scored) : std::vector<AnswerScore>(answers.size());
  double sum = 0, squares = 0, length = 0, ended = 0, n = 0, failed = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    const double score = scores[i].total;
    if (std::isnan(score)) {
      failed += 1;
      continue;
    }
    if (scorer) scorer->add_means(scores[i], means);
    sum += score, squares += score * score, n += 1;
    length += double(answers[i].answer.tokens.size()), ended += answers[i].answer.finish != Finish::length;
    if (i < kShownSamples)
      samples.push_back(
          {{"prompt", scored[i].prompt}, {"reply", scored[i].reply}, {"reward", score}, {"greedy", greedy}});
  }
  const double mean = sum / n, variance = std::max(squares / n - mean * mean, 0.0);
  const auto number = [](double x) { return std::isfinite(x) ? Json(x) : Json(); };  // null where nothing was scored
  Json result{{prefix + "reward", number(mean)},
              {prefix + "reward_standard_error", number(std::sqrt(variance / n))},
              {prefix + "response_length", number(length / n)},
              {prefix + "eos_fraction", number(ended / n)},
              {prefix + "reward_failed", failed}};
  means.write_to(result, prefix);
  return result;
}

}  // namespace

std::vector<const Example*> evaluated_examples(const ExampleSet& heldout, int64_t rows) {
  std::vector<const Example*> examples;
  for (size_t i = 0; i < std::min(heldout.size(), size_t(rows)); ++i) examples.push_back(&heldout[i]);
  return examples;
}

Json evaluate_records(const ExampleSet& heldout, int64_t rows, int64_t rows_at_once, AlgorithmInstance& algorithm,
                      Learner& learner) {
  MetricMeans means;
  const auto examples = evaluated_examples(heldout, rows);
  int64_t tokens = 0;
  for (size_t first = 0; first < examples.size(); first += size_t(rows_at_once)) {
    const size_t last = std::min(examples.size(), first + size_t(rows_at_once));
    Experience e =
        experience_of({examples.begin() + int64_t(first), examples.begin() + int64_t(last)}, algorithm.needs().source);
    learner.allocate(e);
    learner.fill_columns(e, means, false);
    const std::string state = algorithm.save();
    prepare(algorithm, e, means);
    learner.evaluate(e, means);
    algorithm.load(state);
    tokens += int64_t(std::count(e.mask.begin(), e.mask.end(), 1.0f));
  }
  Json result;
  means.write_to(result, "eval_");
  result["eval_rows"] = examples.size(), result["eval_tokens"] = tokens;
  return result;
}

Json evaluate_rollouts(const ExampleSet& heldout, int64_t rows, const Rollout& rollout, Scorer* scorer,
                       Phases& phases) {
  const auto prompts = evaluated_examples(heldout, rows);
  Json samples = Json::array(), result = Json::object();
  for (const bool greedy : {false, true}) {
    std::vector<Answered> answers;
    {
      const auto phase = phases.enter(Phase::generate);
      answers = greedy ? rollout.generate_greedy(prompts) : rollout.generate(prompts, 0);
    }
    const auto phase = phases.enter(Phase::score);
    result.update(summarise(rollout, answers, scorer, greedy, samples));
  }
  result["eval_rows"] = prompts.size();
  result["samples"] = samples;
  return result;
}

}  // namespace dsengine
