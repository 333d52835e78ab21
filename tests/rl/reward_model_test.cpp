// A reward model that is asked: at which token its value is read, the scale of its values, and which sources share one.
#include "rl/reward_model.h"

#include <gmock/gmock.h>

#include <cmath>

#include "rl/tiny_rollouts.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

Model begun_reward_model(const fs::path& folder) {
  return load_model(folder, built_plugins(), built_kernels(), {.kind = ModelKind::value, .new_value_head = true});
}

// transformers' LlamaForSequenceClassification takes the rightmost token that is not the padding id.
TEST(RewardModel, ReadsTheLastTokenThatIsNoPadding) {
  const ScratchFolder scratch;
  const fs::path folder = scratch.path() / "padded";
  fs::copy(golden("llama_reward"), folder);
  Json config = read_json(folder / "config.json");
  const auto value_of = [&](const std::vector<int32_t>& ids) {
    return last_values(golden_model(folder, ModelKind::value), {std::span<const int32_t>(ids)})[0];
  };
  const double plain = value_of({5, 6}), with_end = value_of({5, 6, 2});
  EXPECT_NE(plain, with_end);
  config["pad_token_id"] = 2;
  write_text(folder / "config.json", config.dump());
  EXPECT_FLOAT_EQ(float(value_of({5, 6, 2})), float(plain));
  EXPECT_FLOAT_EQ(float(value_of({5, 2, 6})), float(value_of({5, 2, 6, 2, 2})));
  // One that is begun to be trained reads its end token, and says so where it is saved.
  const Model begun = begun_reward_model(folder);
  EXPECT_TRUE(begun.config().at("pad_token_id").is_null());
  const std::vector<int32_t> ids{5, 6, 2};
  EXPECT_FLOAT_EQ(float(last_values(begun, {std::span<const int32_t>(ids)})[0]), float(with_end));
}

TEST(RewardModel, ALanguageModelIsNone) {
  EXPECT_THROW(golden_model("llama_gqa", ModelKind::value), UserError);
  EXPECT_NO_THROW(begun_reward_model(golden("llama_gqa")));
}

// However many sequences share a forward, each has its own value: 1e-6 is float32's rounding of values of order 1.
TEST(RewardModel, SequencesAreReadInPartsOfSoManyTokens) {
  const Model model = golden_model("llama_reward", ModelKind::value);
  const auto sequences = random_sequences({5, 9, 3, 12, 1}, 97);
  const std::vector<std::span<const int32_t>> views(sequences.begin(), sequences.end());
  const auto whole = last_values(model, views), parts = last_values(model, views, 10);
  ASSERT_EQ(parts.size(), 5u);
  for (size_t i = 0; i < parts.size(); ++i) {
    EXPECT_NEAR(parts[i], whole[i], 1e-6);
    EXPECT_NEAR(parts[i], last_values(model, {views[i]})[0], 1e-6);
  }
  EXPECT_GT(std::abs(whole[0] - whole[1]), 1e-3);
}

class RewardModels : public TinyRollouts {};

TEST_F(RewardModels, MomentsAreOfAllAnswersOfThePairs) {
  write_text(folder / "pairs.jsonl",
             "{\"prompt\": \"A?\", \"chosen\": \"Yes.\", \"rejected\": \"No, it is not.\"}\n"
             "{\"prompt\": \"Is it so?\", \"chosen\": \"It is.\", \"rejected\": \"Perhaps\"}\n");
  DataSource from;
  from.path = folder / "pairs.jsonl";
  const auto pairs = ExampleSet::load({from}, built_plugins(), text, {}, DSE_SOURCE_PAIRS);
  const Model model = with_values(actor);
  std::vector<double> values;
  for (size_t i = 0; i < pairs.size(); ++i)
    for (const auto* answer : {&pairs[i].answer, &pairs[i].rejected}) {
      auto ids = pairs[i].prompt;
      ids.insert(ids.end(), answer->tokens.begin(), answer->tokens.end());
      values.push_back(last_values(model, {ids})[0]);
    }
  ASSERT_EQ(values.size(), 4u);
  const double mean = (values[0] + values[1] + values[2] + values[3]) / 4;
  double squares = 0;
  for (const double v : values) squares += (v - mean) * (v - mean);
  const auto moments = moments_on(model, pairs);
  // Values of order 1, in float32, and a difference of squares.
  EXPECT_NEAR(moments.mean, mean, 1e-6);
  EXPECT_NEAR(moments.sd, std::sqrt(squares / 4), 1e-5);
  EXPECT_GT(moments.sd, 1e-2);

  EXPECT_EQ(ScoreMoments::read(folder).sd, 0) << "not recorded";
  moments.write(folder);
  EXPECT_EQ(ScoreMoments::read(folder).mean, moments.mean);
  EXPECT_EQ(ScoreMoments::read(folder).sd, moments.sd);
  write_text(folder / "score_moments.json", "{\"mean\": 1}");
  EXPECT_THAT(error_of([&] { ScoreMoments::read(folder); }), HasSubstr("expected the numbers mean and sd"));
}

TEST_F(RewardModels, SourcesOfOneFolderShareOne) {
  const auto one = folder / "one", two = folder / "two";
  const Model model = with_values(actor);
  save_model_to(model, one, directory), save_model_to(model, two, directory);
  const auto load = [&](const std::vector<RewardSource>& sources, const std::vector<fs::path>& folders) {
    return load_reward_models(sources, folders, built_plugins(), built_kernels(), text);
  };
  const auto models =
      load({raw_model_reward(), regex_reward("", "e"), raw_model_reward(), raw_model_reward()}, {one, {}, one, two});
  ASSERT_EQ(models.size(), 4u);
  EXPECT_TRUE(models[0]);
  EXPECT_FALSE(models[1]) << "it wants none";
  EXPECT_EQ(models[0], models[2]);
  EXPECT_NE(models[0], models[3]);
  EXPECT_FALSE(models[0]->text) << "it has the actor's words";
  EXPECT_THAT(error_of([&] {
                load({regex_reward("", "e"), raw_model_reward()}, {{}, {}});
              }),
              HasSubstr("the reward 'model' needs a reward model: set its 'from'"));
}

}  // namespace
}  // namespace dsengine
