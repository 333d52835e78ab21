// A reward model that is asked, not trained: its values, the scale of them, and the words that it is asked in.
//
//   auto models = load_reward_models(stage.reward_sources(), folders, registry, kernels, actor_text);
//   double value = last_values(models[0]->model, {ids})[0];
//   moments_on(model, pairs).write(folder);                 // of one that has been trained
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "model/model.h"
#include "rl/examples.h"
#include "run/config.h"

namespace dsengine {

// Value of a reward model at the last token of each sequence; where config.json names a padding token, at the last
// that is another one, as transformers' …ForSequenceClassification reads it.
std::vector<double> last_values(const Model& model, const std::vector<std::span<const int32_t>>& sequences,
                                int64_t tokens_per_forward = 8192);

// Mean and standard deviation of a reward model's scores on its training answers, kept beside it.
struct ScoreMoments {
  double mean = 0, sd = 0;  // sd 0: not recorded
  static ScoreMoments read(const std::filesystem::path& model_directory);
  void write(const std::filesystem::path& model_directory) const;
};
// On at most 500 of the pairs that it was trained on.
ScoreMoments moments_on(const Model& model, const ExampleSet& pairs);

struct RewardModel {
  Model model;
  ScoreMoments moments;
  std::optional<TextModel> text{};  // of one with words of its own: another vocabulary, another chat template
};

// Whether the source's plugin is given a reward model's values.
bool wants_model(const PluginRegistry& registry, const RewardSource& source);

// Of each source, null where its plugin wants none; sources of one folder share one. base: of those that are adapters,
// in place of the base that they name; may be empty. streamed: how their weights are kept. dtype: what they compute in.
// UserError where a source wants a model and has none.
std::vector<std::shared_ptr<const RewardModel>> load_reward_models(
    const std::vector<RewardSource>& sources, const std::vector<std::filesystem::path>& folders,
    const PluginRegistry& registry, const Kernels& kernels, const TextModel& actor_text,
    const std::filesystem::path& base = {}, StreamSettings streamed = {}, at::ScalarType dtype = at::kFloat);
// The same error, without loading any.
void check_reward_models(const std::vector<RewardSource>& sources, const std::vector<std::filesystem::path>& folders,
                         const PluginRegistry& registry);

}  // namespace dsengine
