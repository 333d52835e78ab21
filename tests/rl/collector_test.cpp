// A step's experience: groups without a signal replaced, scores of several rewards summed, another vocabulary
// re-encoded. The actor is the tiny task's model with random weights: its answers are gibberish, with an "e" in some.
#include "rl/collector.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "../model/golden_models.h"
#include "base/check.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

RewardSource regex_reward(const std::string& name, const std::string& pattern, double weight = 1) {
  return {name, "match", "", weight, {{"kind", {std::string("regex"), ""}}, {"pattern", {pattern, ""}}}};
}

class Collecting : public testing::Test {
 protected:
  Collecting() {
    fs::create_directories(folder);
    std::string lines;
    for (int i = 0; i < 40; ++i) lines += fmt::format("{{\"prompt\": \"Question {}?\"}}\n", i);
    write_text(folder / "prompts.jsonl", lines);
    DataSource from;
    from.path = folder / "prompts.jsonl";
    data = ExampleSet::load({from}, built_plugins(), text, {}, DSE_SOURCE_ROLLOUT);
    config.batch_size = 6, config.samples_per_prompt = 3, config.max_response_length = 5;
  }
  ~Collecting() override { fs::remove_all(folder); }

  Scorer scorer(const std::vector<RewardSource>& sources, std::vector<fs::path> models = {}) {
    models.resize(sources.size());
    return {sources, models, built_plugins(), reference_kernels(), text};
  }
  Experience collect(Scorer& scores, int64_t step = 0) {
    means = {};
    Collector collector(config, 2, data, 9, 4);
    const Rollout rollout(actor, text, config, 11);
    return collector.collect(step, {uint64_t(step * config.batch_size), config.batch_size}, rollout, &scores, clock,
                             means);
  }
  static std::map<int64_t, std::vector<float>> groups(const Experience& e) {
    std::map<int64_t, std::vector<float>> result;
    for (int64_t r = 0; r < e.row_count(); ++r) result[e.prompt[size_t(r)]].push_back(e.score[size_t(r)]);
    return result;
  }

  const fs::path folder = fs::path(testing::TempDir()) / fmt::format("dse_collector_{}", getpid());
  const fs::path directory = fs::path(DSE_SOURCE_DIR) / "examples/tiny/model";
  const TextModel text = TextModel::load(directory, directory);
  const Model actor = Model::load(directory, built_plugins(), reference_kernels(), {.random_init = true, .seed = 3});
  ExampleSet data;
  RolloutConfig config;
  PhaseClock clock;
  MetricMeans means;
};

TEST_F(Collecting, GroupsWithoutASignalAreReplaced) {
  auto scores = scorer({regex_reward("", "e")});
  const Experience plain = collect(scores);
  int64_t flat = 0;
  for (const auto& [prompt, group] : groups(plain))
    flat += *std::max_element(group.begin(), group.end()) == *std::min_element(group.begin(), group.end());
  ASSERT_GT(flat, 0);
  ASSERT_LT(flat, 6);
  EXPECT_TRUE(std::isnan(means.mean("groups_replaced")));

  config.dynamic_sampling = true;
  const Experience full = collect(scores);
  EXPECT_EQ(full.row_count(), 18);
  const auto kept = groups(full);
  EXPECT_EQ(kept.size(), 6u);
  for (const auto& [prompt, group] : kept)
    EXPECT_NE(*std::max_element(group.begin(), group.end()), *std::min_element(group.begin(), group.end()));
  EXPECT_GE(means.mean("groups_replaced"), double(flat));
  // Once more, and another step: the same step is the same, another is another.
  const Experience again = collect(scores), other = collect(scores, 1);
  EXPECT_EQ(again.token, full.token);
  EXPECT_NE(other.token, full.token);
}

// Means of the parts are of the rows that the step keeps, so that they add up to the reward.
TEST_F(Collecting, PartsAddUpWhereGroupsAreReplaced) {
  config.dynamic_sampling = true;
  auto scores = scorer({regex_reward("e", "e", 2), regex_reward("letters", "[a-m]", 1)});
  collect(scores);
  EXPECT_GT(means.mean("groups_replaced"), 0);
  EXPECT_NEAR(means.mean("reward"), 2 * means.mean("reward_e") + means.mean("reward_letters"), 1e-6);
}

TEST_F(Collecting, WhereNothingSaysAnythingTheStepGoesOn) {
  config.dynamic_sampling = true, config.max_refills = 3;
  auto scores = scorer({regex_reward("", "no answer holds this")});
  const Experience e = collect(scores);
  EXPECT_EQ(e.row_count(), 18);
  EXPECT_EQ(means.mean("groups_replaced"), 18);  // six groups, three rounds
}

TEST_F(Collecting, RewardsAreSummedByWeight) {
  auto first = scorer({regex_reward("", "e")}), second = scorer({regex_reward("", "[a-m]")});
  const Experience one = collect(first);
  const Experience two = collect(second);
  auto both = scorer({regex_reward("e", "e", 0.5), regex_reward("letters", "[a-m]", -2)});
  const Experience sum = collect(both);
  double e = 0, letters = 0;
  for (size_t r = 0; r < sum.score.size(); ++r) {
    EXPECT_FLOAT_EQ(sum.score[r], 0.5f * one.score[r] - 2 * two.score[r]);
    e += one.score[r], letters += two.score[r];
  }
  EXPECT_NEAR(means.mean("reward_e"), e / 18, 1e-6);
  EXPECT_NEAR(means.mean("reward_letters"), letters / 18, 1e-6);
  EXPECT_NEAR(means.mean("reward"), (0.5 * e - 2 * letters) / 18, 1e-6);
}

// A reward model whose tokenizer numbers its tokens otherwise reads the conversation in its own ids.
TEST_F(Collecting, ARewardModelWithAnotherVocabularyReadsText) {
  const Model model = actor.clone(ModelKind::value);
  at::NoGradGuard no_grad;
  at::manual_seed(1);
  for (const auto& t : model.tensors())
    if (t.spec->tensor == "score.weight") at::Tensor(t.tensor).normal_();
  const fs::path same = folder / "same", other = folder / "other";
  fs::create_directories(same), fs::create_directories(other);
  model.save(same, directory), model.save(other, directory);
  // Two letters change places in the vocabulary, and so do their embeddings: the same model of text.
  Json tokenizer = read_json(other / "tokenizer.json");
  auto& vocabulary = tokenizer["model"]["vocab"];
  const int64_t a = vocabulary.at("e"), b = vocabulary.at("o");
  vocabulary["e"] = b, vocabulary["o"] = a;
  write_text(other / "tokenizer.json", tokenizer.dump());
  Model swapped = model.clone(ModelKind::value);
  for (const auto& t : swapped.tensors())
    if (t.spec->tensor == "model.embed_tokens.weight") {
      at::Tensor table = t.tensor;
      const at::Tensor row = table[a].clone();
      table[a].copy_(table[b]), table[b].copy_(row);
    }
  fs::remove(other / "model.safetensors");
  fs::create_directories(folder / "weights");
  swapped.save(folder / "weights", {});
  fs::copy(folder / "weights/model.safetensors", other / "model.safetensors");

  const RewardSource source{"", "model", "", 1, {{"normalize", {false, ""}}}};
  auto by_ids = scorer({source}, {same}), by_text = scorer({source}, {other});
  std::vector<const Example*> prompts;
  for (size_t i = 0; i < 6; ++i) prompts.push_back(&data[i]);
  const Rollout rollout(actor, text, config, 11);
  const auto answers = rollout.to_score(rollout.generate(prompts, 0));
  const auto ids = by_ids.score(answers), texts = by_text.score(answers);
  int64_t differ = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_FLOAT_EQ(ids[i].total, float(last_values(model, {answers[i].tokens})[0]));
    auto encoded = text.prompt_tokens(answers[i].turns);
    const auto reply = text.tokenizer.encode(" " + answers[i].reply, false);
    encoded.insert(encoded.end(), reply.begin(), reply.end());
    if (answers[i].finish == DSE_FINISH_EOS) encoded.push_back(text.eos[0]);
    EXPECT_NEAR(texts[i].total, last_values(model, {encoded})[0], 1e-5);
    differ += std::abs(texts[i].total - texts[0].total) > 1e-3;
  }
  EXPECT_GT(differ, 0);
}

}  // namespace
}  // namespace dsengine
