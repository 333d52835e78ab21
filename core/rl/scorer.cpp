#include "rl/scorer.h"

#include <ATen/ATen.h>
#include <spdlog/spdlog.h>

#include <cmath>
#include <limits>

#include "base/check.h"

namespace dsengine {

std::vector<double> last_values(const Model& model, const std::vector<std::span<const int32_t>>& sequences,
                                int64_t tokens_per_forward) {
  at::NoGradGuard no_grad;
  const auto id = model.config().value("pad_token_id", Json());
  const int64_t pad = whole_number(id, 0, INT32_MAX).value_or(-1);  // no token has the id -1
  std::vector<double> result;
  for (size_t first = 0; first < sequences.size();) {
    std::vector<std::span<const int32_t>> part;
    int64_t tokens = 0;
    for (; first + part.size() < sequences.size(); tokens += int64_t(part.back().size())) {
      const auto& next = sequences[first + part.size()];
      if (!part.empty() && tokens + int64_t(next.size()) > tokens_per_forward) break;
      part.push_back(next);
    }
    const Batch batch = pack(model.device(), part);
    std::vector<int64_t> last;
    for (size_t i = 0; i < part.size(); ++i) {
      int64_t end = int64_t(part[i].size());
      while (end > 1 && part[i][size_t(end) - 1] == pad) --end;
      last.push_back(batch.offsets[i] + end - 1);
    }
    const at::Tensor values = model.values(model.hidden(batch), model.device().upload(last)).to(at::kDouble);
    for (int64_t i = 0; i < values.numel(); ++i) result.push_back(values.const_data_ptr<double>()[i]);
    first += part.size();
  }
  return result;
}

ScoreMoments ScoreMoments::read(const std::filesystem::path& model_directory) {
  const auto path = model_directory / "score_moments.json";
  if (!std::filesystem::exists(path)) return {};
  const Json json = read_json(path);
  DSE_CHECK_USER(json.contains("mean") && json["mean"].is_number() && json.contains("sd") && json["sd"].is_number(),
                 "{}: expected the numbers mean and sd", path.string());
  return {json["mean"], json["sd"]};
}

void ScoreMoments::write(const std::filesystem::path& model_directory) const {
  write_text(model_directory / "score_moments.json", Json{{"mean", mean}, {"sd", sd}}.dump(2) + "\n");
}

void Scorer::check_models(const std::vector<RewardSource>& sources, const std::vector<std::filesystem::path>& models,
                          const PluginRegistry& registry) {
  for (size_t i = 0; i < sources.size(); ++i)
    DSE_CHECK_USER(!models[i].empty() || !registry.find(DSE_REWARD_ITEM, sources[i].plugin).reward().needs_model,
                   "the reward '{}' needs a reward model: set its 'from', or train one in an earlier stage",
                   sources[i].plugin);
}

Scorer::Scorer(const std::vector<RewardSource>& sources, const std::vector<std::filesystem::path>& models,
               const PluginRegistry& registry, const Kernels& kernels, const TextModel& actor_text,
               const std::filesystem::path& base) {
  check_models(sources, models, registry);
  for (size_t i = 0; i < sources.size(); ++i) {
    const auto& from = sources[i];
    const Item& item = registry.find(DSE_REWARD_ITEM, from.plugin);
    RewardRules rules = RewardRules::of(item, from.options);
    RewardInstance reward(item, rules.options);
    Source source{from.name.empty() ? from.plugin : from.name, from.weight, std::move(rules), std::move(reward)};
    if (source.reward.needs_model()) {
      source.model = Model::load(models[i], registry, kernels, {.kind = ModelKind::value, .base = base});
      source.moments = ScoreMoments::read(models[i]);
      if (TextModel::folder_of(models[i], base)) {
        auto text = TextModel::load(models[i], models[i], base);
        if (!text.tokenizer.has_ids_of(actor_text.tokenizer) || text.has_words_beside(actor_text))
          source.text = std::move(text);
      }
    }
    sources_.push_back(std::move(source));
  }
}

// What the source's reward model reads.
std::vector<int32_t> Scorer::tokens_of(const Source& source, const ScoredAnswer& a) {
  if (!source.text) return a.tokens;
  const TextModel& text = *source.text;
  auto ids = text.prompt_tokens(a.turns);
  const auto answer = text.answer_tokens(a.turns, a.reply, a.finish != Finish::length);
  ids.insert(ids.end(), answer.begin(), answer.end());
  return ids;
}

std::vector<float> Scorer::score(Source& source, const std::vector<ScoredAnswer>& answers) const {
  std::vector<double> values(answers.size(), 0);
  if (source.model) {
    std::vector<std::vector<int32_t>> ids;
    for (const auto& a : answers) ids.push_back(tokens_of(source, a));
    const auto limit = source.model->graph().max_positions;
    for (const auto& sequence : ids)
      DSE_CHECK_USER(limit == 0 || int64_t(sequence.size()) <= limit,
                     "an answer with its prompt has {} tokens, the reward model of '{}' takes {}: lower "
                     "rollout.max_response_length",
                     sequence.size(), source.name, limit);
    values = last_values(*source.model, {ids.begin(), ids.end()});
  }
  std::vector<dse_answer> views;
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto& a = answers[i];
    views.push_back({sizeof(dse_answer), uint32_t(a.finish), a.prompt.c_str(), a.reply.c_str(),
                     a.metadata.empty() ? nullptr : a.metadata.c_str(), values[i], source.moments.mean,
                     source.moments.sd > 0 ? source.moments.sd : 1, a.answer_size});
  }
  leave_where_stopped();
  std::vector<float> scores;
  try {
    CallWatch::Rules rules = watch_;
    rules.deadline = source.rules.deadline;
    const CallWatch watch(fmt::format("reward '{}', asked for {} answers", source.name, answers.size()), rules);
    scores = source.reward.score(views);
  } catch (const UserError& e) {
    throw RewardError(e.what());
  }
  leave_where_stopped();
  note_failures(source, scores);
  return scores;
}

void Scorer::leave_where_stopped() const {
  if (watch_.stop && watch_.stop->requested()) throw StepLeft();
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
