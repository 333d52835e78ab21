// The engine as a library: what it computes is what the program computes, and a step by a caller's loss is the step
// that the algorithm's plugin makes.
#include "engine/engine.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <fstream>

namespace {

namespace fs = std::filesystem;

fs::path golden(const std::string& name) { return fs::path(DSE_TEST_DIR) / "golden" / name; }

class EngineTest : public testing::Test {
 protected:
  EngineTest() { fs::remove_all(folder); }
  ~EngineTest() override { fs::remove_all(folder); }

  std::vector<dse::Reply> replies() const {
    const dse::Model model = engine.load(golden("llama_gqa"));
    return model.generate({{5, 6, 7}, {9, 8}, {11, 12, 13, 14}}, {.max_new_tokens = 6, .samples = 2, .step = 3});
  }
  dse::Model trained(const char* name, int64_t lora_rank = 0) const {
    return engine.load(golden(name), {.training = dse::Training{.learning_rate = 1e-2, .lora_rank = lora_rank}});
  }

  const fs::path folder = fs::path(testing::TempDir()) / ("dse_engine_" + std::to_string(getpid()));
  const dse::Engine engine{{.plugin_path = {fs::path(DSE_BINARY_DIR) / "lib/dsengine"}, .threads = 2}};
};

TEST_F(EngineTest, RepliesCarryTheLogProbabilitiesThatScoringGives) {
  const auto all = replies();
  const dse::Model model = engine.load(golden("llama_gqa"));
  EXPECT_FALSE(model.is_value_model());
  EXPECT_EQ(model.text(), nullptr);
  ASSERT_EQ(all.size(), 6u);
  const auto scored = model.log_probs(all);
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].prompt, all[i / 2 * 2].prompt);
    ASSERT_EQ(scored[i].size(), all[i].tokens.size());
    dse::Tokens sequence = all[i].prompt;
    sequence.insert(sequence.end(), all[i].tokens.begin(), all[i].tokens.end());
    const auto whole = model.log_probs(std::vector<dse::Tokens>{sequence})[0];
    ASSERT_EQ(whole.size(), sequence.size() - 1);
    for (size_t t = 0; t < scored[i].size(); ++t) {
      EXPECT_NEAR(scored[i][t], all[i].logprobs[t], 1e-5);
      EXPECT_NEAR(scored[i][t], whole[all[i].prompt.size() - 1 + t], 1e-5);
    }
  }
  EXPECT_TRUE(model.log_probs(std::vector<dse::Tokens>{{4}})[0].empty());
}

// The clipped objective at its first step, where every ratio is 1: slope -advantage / tokens. With SFT's loss instead:
// slope -1 / tokens, which is what the plugin `sft` computes.
TEST_F(EngineTest, ACallersLossIsThePluginsStep) {
  const auto all = replies();
  dse::Model by_hand = trained("llama_gqa"), by_plugin = trained("llama_gqa");
  double tokens = 0;
  for (const auto& r : all) tokens += double(r.tokens.size());
  const auto result = dse::train_step(&by_hand, nullptr, all, {.micro_batch_size = 4}, [&](dse::MicroBatch& micro) {
    double loss = 0;
    for (size_t r = 0; r < micro.logp.size(); ++r)
      for (size_t t = 0; t < micro.logp[r].size(); ++t) {
        loss -= micro.logp[r][t] / tokens;
        micro.d_logp[r][t] = float(-1 / tokens);
      }
    return loss;
  });
  dse::Trainer trainer(engine, {.algorithm = "sft", .actor = by_plugin, .mini_batch_size = 6, .micro_batch_size = 2});
  const auto metrics = trainer.step(all);
  EXPECT_NEAR(result.loss, metrics.at("loss"), 1e-5);
  EXPECT_NEAR(result.grad_norm, metrics.at("grad_norm"), 1e-4 * result.grad_norm);
  const auto before = engine.load(golden("llama_gqa")).log_probs(all), one = by_hand.log_probs(all);
  const auto two = by_plugin.log_probs(all);
  double moved = 0;
  for (size_t r = 0; r < one.size(); ++r)
    for (size_t t = 0; t < one[r].size(); ++t) {
      EXPECT_NEAR(one[r][t], two[r][t], 2e-3);  // Adam's first step divides by tiny gradients' own size
      moved = std::max(moved, double(std::abs(one[r][t] - before[r][t])));
    }
  EXPECT_GT(moved, 0.1);
}

TEST_F(EngineTest, AnAlgorithmPluginTrainsAnAdapterAndACritic) {
  const auto all = replies();
  dse::Model actor = trained("llama_gqa", 4), critic = trained("llama_reward");
  dse::Trainer trainer(engine, {.algorithm = "ppo",
                                .options = {{"kl_coef", 0.2}, {"whiten", true}},
                                .actor = actor,
                                .critic = critic,
                                .epochs = 2});
  const auto first = trainer.step(all, {1, 0, 1, 0, 1, 0}), second = trainer.step(all, {1, 0, 1, 0, 1, 0});
  EXPECT_EQ(first.at("kl"), 0);  // the adapter begins as no change, and the reference is the base
  EXPECT_NE(second.at("kl"), 0);
  const auto base = actor.log_probs(all, 1, false), before = engine.load(golden("llama_gqa")).log_probs(all);
  EXPECT_EQ(base, before);
  actor.save_adapter(folder / "adapter"), actor.save(folder / "merged"), critic.save(folder / "critic");
  const auto beside = engine.load(folder / "adapter").log_probs(all),
             merged = engine.load(folder / "merged").log_probs(all);
  const auto own = actor.log_probs(all);
  for (size_t r = 0; r < own.size(); ++r)
    for (size_t t = 0; t < own[r].size(); ++t) {
      EXPECT_EQ(beside[r][t], own[r][t]);
      EXPECT_NEAR(merged[r][t], own[r][t], 1e-5);
    }
  EXPECT_TRUE(engine.load(folder / "critic").is_value_model());
}

// Handles keep what they stand for: the engine may go first.
TEST_F(EngineTest, HandlesOutliveTheEngine) {
  const auto all = replies();
  auto second = std::make_unique<dse::Engine>(
      dse::EngineOptions{.plugin_path = {fs::path(DSE_BINARY_DIR) / "lib/dsengine"}, .threads = 2});
  dse::Trainer trainer(*second, {.algorithm = "sft", .actor = trained("llama_gqa")});
  const dse::Model model = second->load(golden("llama_gqa"));
  second.reset();
  EXPECT_GT(trainer.step(all).at("loss"), 0);
  EXPECT_EQ(model.log_probs(all).size(), all.size());
}

// Sampled at another temperature, the ratio to the sampler is 1 before the first update.
TEST_F(EngineTest, AStepHasTheSamplersTemperature) {
  dse::Model actor = trained("llama_gqa");
  const auto cool = actor.generate({{5, 6, 7}}, {.max_new_tokens = 6, .temperature = 0.5});
  dse::train_step(&actor, nullptr, cool, {.temperature = 0.5}, [&](dse::MicroBatch& micro) {
    for (size_t t = 0; t < micro.logp[0].size(); ++t) EXPECT_NEAR(micro.logp[0][t], cool[0].logprobs[t], 1e-5);
    return 0.0;
  });
}

// What is exported of a reward model scales its scores as the original does.
TEST_F(EngineTest, ASavedRewardModelKeepsItsMoments) {
  fs::create_directories(folder);
  fs::copy(golden("llama_reward"), folder / "reward");
  std::ofstream(folder / "reward/score_moments.json") << R"({"mean": 0.25, "sd": 2.5})";
  engine.load(folder / "reward").save(folder / "saved");
  std::ifstream saved(folder / "saved/score_moments.json");
  const std::string text((std::istreambuf_iterator<char>(saved)), {});
  EXPECT_NE(text.find("0.25"), std::string::npos) << text;
  EXPECT_NE(text.find("2.5"), std::string::npos);
}

// A vocabulary padded beyond the tokenizer's: its rows count in every log-probability and may be sampled, and their
// text is empty, as in transformers.
TEST_F(EngineTest, AVocabularyMayBePaddedBeyondTheTokenizer) {
  fs::copy(fs::path(DSE_TEST_DIR) / "../examples/tiny/model", folder, fs::copy_options::recursive);
  std::ifstream in(folder / "config.json");
  std::string config{std::istreambuf_iterator<char>(in), {}};
  const auto at = config.find("\"vocab_size\": 768");
  ASSERT_NE(at, config.npos);
  std::ofstream(folder / "config.json") << config.replace(at, 17, "\"vocab_size\": 896");
  const dse::Model model = engine.load(folder, {.random_init = true});
  ASSERT_EQ(model.vocabulary(), 896);
  ASSERT_EQ(model.text()->vocabulary(), 768);
  dse::Tokens prompt = model.text()->encode("hello");
  const auto reply = model.generate({prompt}, {.max_new_tokens = 100, .ignore_end = true})[0];
  dse::Tokens known;
  for (const auto id : reply.tokens)
    if (id < 768) known.push_back(id);
  EXPECT_LT(known.size(), reply.tokens.size());
  EXPECT_EQ(reply.text, model.text()->decode(known));
  prompt.push_back(895);
  EXPECT_NO_THROW(model.log_probs(std::vector<dse::Tokens>{prompt}));
  double sum = 0;
  for (int32_t id = 0; id < 896; ++id) sum += std::exp(model.log_probs(std::vector<dse::Tokens>{{5, id}})[0][0]);
  EXPECT_NEAR(sum, 1, 1e-5);
}

TEST_F(EngineTest, MistakesAreOneLine) {
  const auto all = replies();
  dse::Model model = engine.load(golden("llama_gqa")), critic = engine.load(golden("llama_reward"));
  const auto says = [](const auto& call, const char* part) {
    try {
      call();
      ADD_FAILURE() << "no error: " << part;
    } catch (const std::runtime_error& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
      EXPECT_EQ(std::string(e.what()).find('\n'), std::string::npos) << e.what();
    }
  };
  const auto no_loss = [](dse::MicroBatch&) { return 0.0; };
  says([&] { engine.load(folder / "nowhere"); }, "nowhere");
  says([&] { model.values(all); }, "values");
  says([&] { critic.generate({{5}}); }, "answers nothing");
  says([&] { critic.log_probs(all); }, "language model");
  says([&] { dse::train_step(&model, nullptr, all, {}, no_loss); }, "Loading::training");
  says([&] { dse::Trainer(engine, {.algorithm = "pppo"}); }, "pppo");
  says([&] { dse::Trainer(engine, {.algorithm = "ppo", .options = {{"kl_coeff", 1.0}}}); }, "kl_coeff");
  says([&] { dse::Trainer(engine, {.algorithm = "ppo"}); }, "needs the actor");
  says([&] { model.save_adapter(folder); }, "no adapter");
  says([&] { model.log_probs(std::vector<dse::Tokens>{{5, 99999}}); }, "vocabulary");
  says([&] { critic.rewards({{}}); }, "no tokens");
  dse::Model actor = trained("llama_gqa");
  says([&] { dse::train_step(nullptr, &actor, all, {}, no_loss); }, "value model");
  dse::Trainer pairs(engine, {.algorithm = "dpo", .actor = actor, .reference = model});
  says([&] { pairs.step({all[0], all[1], all[2]}); }, "pairs");
  dse::Trainer groups(engine, {.algorithm = "grpo", .actor = actor, .reference = model});
  says([&] { groups.step(all, {1, 2, 3, NAN, 5, 6}); }, "score of reply 3");
  auto odd = all;
  odd[2].logprobs.push_back(0);
  says([&] { groups.step(odd, {1, 2, 3, 4, 5, 6}); }, "logprobs");
  fs::create_directories(folder);
  says([&] { model.save(folder); }, "exists");
}

}  // namespace
