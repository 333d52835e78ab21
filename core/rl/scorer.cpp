#include "rl/scorer.h"

#include <ATen/ATen.h>

#include "base/check.h"

namespace dsengine {

std::vector<double> last_values(const Model& model, const std::vector<std::span<const int32_t>>& sequences,
                                int64_t tokens_per_forward) {
  at::NoGradGuard no_grad;
  const auto id = model.config().value("pad_token_id", Json());
  const int64_t pad = id.is_number_integer() ? id.get<int64_t>() : -1;  // no token has the id -1
  std::vector<double> result;
  for (size_t first = 0; first < sequences.size();) {
    std::vector<std::span<const int32_t>> part;
    int64_t tokens = 0;
    for (; first + part.size() < sequences.size(); tokens += int64_t(part.back().size())) {
      const auto& next = sequences[first + part.size()];
      if (!part.empty() && tokens + int64_t(next.size()) > tokens_per_forward) break;
      part.push_back(next);
    }
    const Packed batch = pack(part);
    std::vector<int64_t> last;
    for (size_t i = 0; i < part.size(); ++i) {
      int64_t end = int64_t(part[i].size());
      while (end > 1 && part[i][size_t(end) - 1] == pad) --end;
      last.push_back(batch.offsets[i] + end - 1);
    }
    const at::Tensor values = model.values(model.hidden(batch), at::tensor(last, at::kLong)).to(at::kDouble);
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

Scorer::Scorer(const RewardSource& source, const PluginRegistry& registry, const Kernels& kernels,
               const std::filesystem::path& model_directory)
    : reward_(registry.find(DSE_REWARD_ITEM, source.adapter),
              OptionSet(registry.find(DSE_REWARD_ITEM, source.adapter), source.options)),
      weight_(source.weight) {
  if (!reward_.needs_model()) return;
  DSE_CHECK_USER(!model_directory.empty(),
                 "the reward '{}' needs a reward model: set reward.from, or train one in an "
                 "earlier stage",
                 source.adapter);
  model_ = Model::load(model_directory, registry, kernels, {.kind = ModelKind::value});
  moments_ = ScoreMoments::read(model_directory);
}

std::vector<float> Scorer::score(const std::vector<ScoredAnswer>& answers) {
  std::vector<double> values(answers.size(), 0);
  if (model_) {
    std::vector<std::span<const int32_t>> sequences;
    for (const auto& a : answers) sequences.emplace_back(a.tokens);
    values = last_values(*model_, sequences);
  }
  std::vector<dse_answer> views;
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto& a = answers[i];
    views.push_back({sizeof(dse_answer), a.finish, a.prompt.c_str(), a.reply.c_str(),
                     a.metadata.empty() ? nullptr : a.metadata.c_str(), values[i], moments_.mean,
                     moments_.sd > 0 ? moments_.sd : 1, a.answer_size});
  }
  auto scores = reward_.score(views);
  for (auto& s : scores) s *= float(weight_);
  return scores;
}

}  // namespace dsengine
