// The reward of answers: a reward plugin, and the reward model it asks for.
//
//   Scorer scorer(stage.reward, registry, kernels, model_directory);
//   std::vector<float> scores = scorer.score(texts, sequences);       // NaN: this answer could not be scored
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <vector>

#include "model/model.h"
#include "plugin/instance.h"
#include "run/config.h"

namespace dsengine {

struct ScoredAnswer {
  std::string prompt, reply, metadata;
  std::vector<int32_t> tokens;  // prompt and answer
  int64_t answer_size = 0;
  uint32_t finish = DSE_FINISH_EOS;
};

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

class Scorer {
 public:
  // model_directory: where the reward model lies, if the plugin wants one.
  Scorer(const RewardSource& source, const PluginRegistry& registry, const Kernels& kernels,
         const std::filesystem::path& model_directory);
  std::vector<float> score(const std::vector<ScoredAnswer>& answers);

 private:
  RewardInstance reward_;
  std::optional<Model> model_;
  ScoreMoments moments_;
  double weight_;
};

}  // namespace dsengine
