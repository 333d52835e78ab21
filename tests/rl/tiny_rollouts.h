// Answers of the tiny task's model with random weights, which are gibberish with an "e" in some, and scorers of them.
//
//   class Rollouts : public TinyRollouts {};
//   TEST_F(Rollouts, …) { const auto answers = rollout().generate(prompts(4), 0); … }
#pragma once
#include <gtest/gtest.h>

#include "../model/golden_models.h"
#include "model/hf/load.h"
#include "model/hf/save.h"
#include "plugin/fixtures.h"
#include "rl/rollout.h"
#include "rl/scorer.h"

namespace dsengine {

// Where these tests read and write models.
inline Model drawn_model(const std::filesystem::path& directory, uint64_t seed) {
  return load_model(directory, built_plugins(), built_kernels(), {.random_init = true, .seed = seed});
}
inline void save_model_to(const Model& model, const std::filesystem::path& directory,
                          const std::filesystem::path& tokenizer_from) {
  std::filesystem::create_directories(directory);
  save_model(model, directory, tokenizer_from);
}

inline RewardSource regex_reward(const std::string& name, const std::string& pattern, double weight = 1) {
  return {name, "match", "", weight, {{"kind", {std::string("regex"), ""}}, {"pattern", {pattern, ""}}}};
}
inline RewardSource raw_model_reward() { return {"", "model", "", 1, {{"normalize", {false, ""}}}}; }

// The same model of text under a head that gives values: random ones.
inline Model with_values(const Model& actor) {
  Model model = actor.clone(ModelKind::value);
  at::NoGradGuard no_grad;
  at::manual_seed(1);
  for (const auto& t : model.tensors())
    if (t.spec->tensor == "score.weight") at::Tensor(t.tensor).normal_();
  return model;
}

class TinyRollouts : public testing::Test {
 protected:
  TinyRollouts() {
    std::string lines;
    for (int i = 0; i < 40; ++i) lines += fmt::format("{{\"prompt\": \"Question {}?\"}}\n", i);
    write_text(folder / "prompts.jsonl", lines);
    DataSource from;
    from.path = folder / "prompts.jsonl";
    data = ExampleSet::load({from}, built_plugins(), text, {}, DSE_SOURCE_ROLLOUT);
    config.batch_size = 6, config.samples_per_prompt = 3, config.max_response_length = 5;
  }

  Scorer scorer(const std::vector<RewardSource>& sources, std::vector<std::filesystem::path> models = {}) {
    models.resize(sources.size());
    return {sources, load_reward_models(sources, models, built_plugins(), built_kernels(), text), built_plugins()};
  }
  Rollout rollout(uint64_t seed = 11) { return {scheduler, text, config, seed}; }
  std::vector<const Example*> prompts(size_t count, size_t first = 0) const {
    std::vector<const Example*> some;
    for (size_t i = first; i < first + count; ++i) some.push_back(&data[i]);
    return some;
  }

  const ScratchFolder scratch;
  const std::filesystem::path folder = scratch.path();
  const std::filesystem::path directory = std::filesystem::path(DSE_SOURCE_DIR) / "examples/tiny/model";
  const TextModel text = TextModel::load(directory, directory);
  const Model actor = drawn_model(directory, 3);
  Scheduler scheduler{actor, {}};
  ExampleSet data;
  RolloutConfig config;
};

}  // namespace dsengine
