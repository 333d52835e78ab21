#include "rl/scorer.h"

#include <spdlog/spdlog.h>

#include <cmath>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "rl/agreement.h"
#include "rl/dealing.h"

namespace dsengine {

namespace {

// Offsets of rows with one entry each.
std::vector<int64_t> one_each(size_t rows) {
  std::vector<int64_t> offsets(rows + 1);
  std::iota(offsets.begin(), offsets.end(), int64_t{0});
  return offsets;
}

}  // namespace

Scorer::Scorer(const std::vector<RewardSource>& sources, std::vector<std::shared_ptr<const RewardModel>> models,
               const PluginRegistry& registry, Communicator& ranks)
    : ranks_(ranks) {
  for (size_t i = 0; i < sources.size(); ++i) {
    const auto& from = sources[i];
    const Item& item = registry.find(DSE_REWARD_ITEM, from.plugin);
    RewardRules rules = RewardRules::of(item, from.options);
    RewardInstance reward(item, rules.options);
    sources_.push_back({from.name.empty() ? from.plugin : from.name, from.weight, std::move(rules), std::move(reward),
                        std::move(models[i])});
  }
}

// What the source's reward model reads.
std::vector<int32_t> Scorer::tokens_of(const Source& source, const ScoredAnswer& a) {
  if (!source.model->text) return a.tokens;
  const TextModel& text = *source.model->text;
  auto ids = text.prompt_tokens(a.turns);
  const auto answer = text.answer_tokens(a.turns, a.reply, a.finish != Finish::length);
  ids.insert(ids.end(), answer.begin(), answer.end());
  return ids;
}

std::vector<double> Scorer::model_scores(const Source& source, const std::vector<const ScoredAnswer*>& answers) {
  if (!source.model || answers.empty()) return std::vector<double>(answers.size(), 0);
  std::vector<std::vector<int32_t>> ids;
  for (const auto* a : answers) ids.push_back(tokens_of(source, *a));
  const auto limit = source.model->model.graph().max_positions;
  for (const auto& sequence : ids)
    DSE_CHECK_USER(limit == 0 || int64_t(sequence.size()) <= limit,
                   "an answer with its prompt has {} tokens, the reward model of '{}' takes {}: lower "
                   "rollout.max_response_length",
                   sequence.size(), source.name, limit);
  return last_values(source.model->model, {ids.begin(), ids.end()});
}

std::vector<float> Scorer::ask(Source& source, const std::vector<const ScoredAnswer*>& answers,
                               const std::vector<double>& model_scores) const {
  if (answers.empty()) return {};
  const ScoreMoments moments = source.model ? source.model->moments : ScoreMoments{};
  std::vector<dse_answer> views;
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto& a = *answers[i];
    views.push_back({sizeof(dse_answer), uint32_t(a.finish), a.prompt.c_str(), a.reply.c_str(),
                     a.metadata.empty() ? nullptr : a.metadata.c_str(), model_scores[i], moments.mean,
                     moments.sd > 0 ? moments.sd : 1, a.answer_size});
  }
  return source.reward.score(views);
}

std::vector<float> Scorer::score(Source& source, const std::vector<ScoredAnswer>& answers) const {
  // Answers to one prompt, which are neighbours, are asked for together.
  std::vector<RowUnit> units;
  for (size_t i = 0; i < answers.size(); ++i) {
    if (i == 0 || answers[i].prompt != answers[i - 1].prompt) units.push_back({int64_t(i), int64_t(i), 0});
    ++units.back().last, units.back().tokens += int64_t(answers[i].tokens.size());
  }
  const auto rows = deal(units, ranks_.size(), 0).rows;
  std::vector<const ScoredAnswer*> own;
  for (const auto row : rows[size_t(ranks_.rank())]) own.push_back(&answers[size_t(row)]);

  const Communicator::Purpose purpose(ranks_, "rewards");
  std::vector<double> values;
  ranks_.together([&] { values = model_scores(source, own); });
  leave_where_stopped();
  std::vector<float> scores;
  try {
    // Of this rank's call, and of those of others, for which it waits.
    CallWatch::Rules rules = watch_;
    rules.deadline = source.rules.deadline;
    const CallWatch watch(fmt::format("reward '{}', asked for {} answers", source.name, answers.size()), rules);
    ranks_.together([&] {
      scores = ask(source, own, values);
      if (ranks_.size() == 1) return;
      std::vector<float> all(answers.size());
      put_entries(one_each(answers.size()), rows[size_t(ranks_.rank())], scores, all);
      scores = std::move(all);
    });
  } catch (const UserError& e) {
    throw RewardError(e.what());
  } catch (const RankLost& e) {  // one rank's reward failed: it ends the run on all of them alike
    throw RewardError(e.what());
  }
  leave_where_stopped();
  gather_rows(ranks_, one_each(answers.size()), rows, {&scores});
  note_failures(source, scores);
  return scores;
}

void Scorer::leave_where_stopped() const {
  if (ranks_.agree(watch_.stop && watch_.stop->requested())) throw StepLeft();
}

void Scorer::note_failures(Source& source, std::vector<float>& scores) {
  int64_t failed = 0;
  std::string first;
  for (size_t i = 0; i < scores.size(); ++i) {
    if (std::isfinite(scores[i])) {
      source.failures_in_a_row = 0;
      continue;
    }
    const auto what = fmt::format("answer {} of {}: the score is {}", i + 1, scores.size(), scores[i]);
    if (failed++ == 0) first = what;
    const int64_t in_a_row = ++source.failures_in_a_row, most = source.rules.max_failures;
    if (source.rules.stop_on_failure || (most > 0 && in_a_row > most))
      throw RewardError(
          fmt::format("reward '{}': {}, {}", source.name, what,
                      source.rules.stop_on_failure
                          ? "and its on_failure is \"stop\""
                          : fmt::format("the failure number {} in a row: max_failures is {}", in_a_row, most)));
    scores[i] = std::numeric_limits<float>::quiet_NaN();
  }
  if (failed > 0)
    spdlog::warn("reward_failed name={} answers={} first=\"{}\" note=\"dropped, not scored 0\"", source.name, failed,
                 first);
}

std::vector<AnswerScore> Scorer::score(const std::vector<ScoredAnswer>& answers) {
  std::vector<AnswerScore> result(answers.size());
  for (auto& source : sources_) {
    const auto scores = score(source, answers);
    for (size_t i = 0; i < answers.size(); ++i) {
      result[i].total += scores[i] * float(source.weight);
      result[i].parts.push_back(scores[i]);
    }
  }
  for (size_t i = 0; i < result.size(); ++i) {
    if (!std::isinf(result[i].total)) continue;
    spdlog::warn("reward_failed name=sum answer={} score={} note=\"the weighted sum is no finite number of float32\"",
                 i + 1, result[i].total);
    result[i].total = std::numeric_limits<float>::quiet_NaN();
  }
  return result;
}

void Scorer::add_means(const AnswerScore& score, MetricMeans& means) const {
  for (size_t s = 0; sources_.size() > 1 && s < sources_.size(); ++s)
    if (!std::isnan(score.parts[s])) means.add("reward_" + sources_[s].name, score.parts[s]);
}

}  // namespace dsengine
