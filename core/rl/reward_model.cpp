#include "rl/reward_model.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "base/check.h"
#include "model/hf/load.h"
#include "rl/example_stream.h"

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
    const at::Tensor values = on_host(model.values(model.hidden(batch), model.device().upload(last)).to(at::kDouble));
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

ScoreMoments moments_on(const Model& model, const ExampleSet& pairs) {
  std::vector<const Example*> examples;
  for (size_t i = 0; i < std::min<size_t>(500, pairs.size()); ++i) examples.push_back(&pairs[i]);
  const Experience e = experience_of(examples, DSE_SOURCE_PAIRS);
  std::vector<std::span<const int32_t>> sequences;
  for (const auto& row : e.rows) sequences.emplace_back(row->tokens);
  double sum = 0, squares = 0;
  for (const double v : last_values(model, sequences)) sum += v, squares += v * v;
  const double n = double(sequences.size()), mean = sum / n;
  return {mean, std::sqrt(std::max(0.0, squares / n - mean * mean))};
}

bool wants_model(const PluginRegistry& registry, const RewardSource& source) {
  return registry.find(DSE_REWARD_ITEM, source.plugin).reward().needs_model;
}

void check_reward_models(const std::vector<RewardSource>& sources, const std::vector<std::filesystem::path>& folders,
                         const PluginRegistry& registry) {
  for (size_t i = 0; i < sources.size(); ++i)
    DSE_CHECK_USER(!folders[i].empty() || !wants_model(registry, sources[i]),
                   "the reward '{}' needs a reward model: set its 'from', or train one in an earlier stage",
                   sources[i].plugin);
}

std::vector<std::shared_ptr<const RewardModel>> load_reward_models(const std::vector<RewardSource>& sources,
                                                                   const std::vector<std::filesystem::path>& folders,
                                                                   const PluginRegistry& registry,
                                                                   const Kernels& kernels, const TextModel& actor_text,
                                                                   const std::filesystem::path& base,
                                                                   StreamSettings streamed, at::ScalarType dtype) {
  check_reward_models(sources, folders, registry);
  std::map<std::filesystem::path, std::shared_ptr<const RewardModel>> loaded;
  std::vector<std::shared_ptr<const RewardModel>> models;
  for (size_t i = 0; i < sources.size(); ++i) {
    const auto& folder = folders[i];
    if (!wants_model(registry, sources[i])) {
      models.push_back(nullptr);
      continue;
    }
    auto& model = loaded[folder];
    if (!model) {
      const bool shapes = !kernels.device().has_values();  // perhaps of a model that is still to be trained
      RewardModel made{
          load_model(
              folder, registry, kernels,
              {.kind = ModelKind::value, .random_init = shapes, .dtype = dtype, .base = base, .streamed = streamed}),
          ScoreMoments::read(folder)};
      if (TextModel::folder_of(folder, base)) {
        auto text = TextModel::load(folder, folder, base);
        if (!text.tokenizer.has_ids_of(actor_text.tokenizer) || text.has_words_beside(actor_text))
          made.text = std::move(text);
      }
      model = std::make_shared<const RewardModel>(std::move(made));
    }
    models.push_back(model);
  }
  return models;
}

}  // namespace dsengine
