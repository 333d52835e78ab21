// Generation: transformers' greedy tokens, the same answers whatever the batch and slots, log-probs equal to
// the training forward's, and how answers end.
#include "model/generator.h"

#include <gtest/gtest.h>

#include "base/check.h"
#include "golden_models.h"

namespace dsengine {
namespace {

std::vector<GenerationRequest> requests_of(const std::vector<std::vector<int32_t>>& prompts, int64_t new_tokens) {
  std::vector<GenerationRequest> requests;
  for (const auto& p : prompts) requests.push_back({p, new_tokens, requests.size()});
  return requests;
}

GenerationOptions sampled(double temperature, std::vector<int32_t> eos = {}) {
  return {.sampling = {.temperature = temperature}, .eos = std::move(eos), .on_token = {}, .on_step = {}};
}

class Generation_ : public testing::TestWithParam<std::string> {
 protected:
  Model model = golden_model(GetParam());
  std::vector<std::vector<int32_t>> prompts =
      random_sequences({1, 17, 3, 8, 2, 30, 5, 11, 4, 21, 9, 6}, int32_t(model.graph().vocabulary));
};

TEST_P(Generation_, GreedyTokensAreTransformers) {
  const Json golden_cases = read_json(golden(GetParam()) / "golden.json").at("cases");
  std::vector<std::vector<int32_t>> given;
  for (const auto& c : golden_cases) given.push_back(c.at("input_ids"));
  for (const int64_t slots : {1, 8}) {
    const auto answers = Generator(model, {.slots = slots}).run(requests_of(given, 40), sampled(0), 1, 0);
    for (size_t i = 0; i < answers.size(); ++i)
      EXPECT_EQ(answers[i].tokens, golden_cases[i].at("greedy").get<std::vector<int32_t>>())
          << slots << " slots, " << i;
  }
}

// Continuous batching: rows enter and leave at different times, alone or among others, and every token and
// log-probability keeps its bits.
TEST_P(Generation_, AnswersDoNotDependOnTheBatch) {
  auto requests = requests_of(prompts, 0);
  for (size_t i = 0; i < requests.size(); ++i) requests[i].max_new_tokens = 3 + int64_t(i * 5 % 17);
  const auto options = sampled(1.0, {7, 11});
  const auto expected = Generator(model, {.slots = 12}).run(requests, options, 42, 5);
  for (const auto& [slots, prefill] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 8192}, {2, 20}, {3, 1}, {5, 8192}, {8, 40}}) {
    const auto answers = Generator(model, {.slots = slots, .prefill_tokens = prefill}).run(requests, options, 42, 5);
    for (size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(answers[i].tokens, expected[i].tokens) << slots << " slots, request " << i;
      EXPECT_EQ(answers[i].logp, expected[i].logp) << slots << " slots, request " << i;
      EXPECT_EQ(answers[i].finish, expected[i].finish);
    }
  }
}

// What the rollout says of its tokens is what training will compute: mean 1e-5 and maximum 1e-4 are the bounds
// of the run's alarm; here in float32.
TEST_P(Generation_, LogProbsAreTheTrainingForwards) {
  for (const double temperature : {1.0, 0.6}) {
    const auto answers = Generator(model, {.slots = 5}).run(requests_of(prompts, 20), sampled(temperature), 9, 1);
    double worst = 0;
    for (size_t i = 0; i < answers.size(); ++i) {
      std::vector<int32_t> whole = prompts[i];
      whole.insert(whole.end(), answers[i].tokens.begin(), answers[i].tokens.end());
      const Batch batch = pack(Device::host(), {whole});
      const int64_t first = int64_t(prompts[i].size()), n = int64_t(answers[i].tokens.size());
      const at::Tensor rows = at::arange(first - 1, first + n - 1, at::kLong);
      const auto logp =
          model.log_prob(model.hidden(batch), rows, batch.tokens.narrow(0, first, n), temperature, false).logp;
      for (int64_t t = 0; t < n; ++t)
        worst = std::max(worst, std::abs(double(answers[i].logp[size_t(t)]) - logp[t].item<double>()));
    }
    EXPECT_LE(worst, 1e-5) << "temperature " << temperature;
  }
}

INSTANTIATE_TEST_SUITE_P(Golden, Generation_, testing::ValuesIn(golden_names("causal_lm")),
                         [](const auto& info) { return info.param; });

TEST(Generator, DrawsDependOnSeedStepAndRowAlone) {
  const Model model = golden_model("llama_gqa");
  const std::vector<int32_t> prompt{5, 6, 7};
  const auto run = [&](uint64_t seed, uint64_t step, uint64_t row) {
    return Generator(model, {.slots = 4}).run({{prompt, 16, row}}, sampled(1.0), seed, step)[0].tokens;
  };
  EXPECT_EQ(run(1, 2, 3), run(1, 2, 3));
  EXPECT_NE(run(1, 2, 3), run(2, 2, 3));
  EXPECT_NE(run(1, 2, 3), run(1, 3, 3));
  EXPECT_NE(run(1, 2, 3), run(1, 2, 4));
}

TEST(Generator, SaysHowAnAnswerEnded) {
  const Model model = golden_model("llama_gqa");
  const std::vector<int32_t> prompt{5, 6, 7};
  const auto greedy = Generator(model, {.slots = 1}).run({{prompt, 12, 0}}, sampled(0), 1, 0)[0];
  ASSERT_EQ(greedy.tokens.size(), 12u);
  EXPECT_EQ(greedy.finish, Finish::length);

  const int32_t end = greedy.tokens[4];
  size_t first = 0;
  while (greedy.tokens[first] != end) ++first;
  const auto ended = Generator(model, {.slots = 1}).run({{prompt, 12, 0}}, sampled(0, {96, end}), 1, 0)[0];
  EXPECT_EQ(ended.finish, Finish::eos);
  EXPECT_EQ(ended.tokens.size(), first + 1);  // the ending token belongs to the answer
  EXPECT_EQ(ended.tokens.back(), end);

  auto options = sampled(0);
  options.on_token = [](size_t, const std::vector<int32_t>& tokens) { return tokens.size() == 3; };
  const auto stopped = Generator(model, {.slots = 1}).run({{prompt, 12, 0}}, options, 1, 0)[0];
  EXPECT_EQ(stopped.finish, Finish::stop);
  EXPECT_EQ(stopped.tokens.size(), 3u);
  // An end token as the very last one allowed is an end, not a cut.
  const auto last = Generator(model, {.slots = 1}).run({{prompt, int64_t(first) + 1, 0}}, sampled(0, {end}), 1, 0)[0];
  EXPECT_EQ(last.finish, Finish::eos);
}

TEST(Generator, RefusesWhatTheModelCannotDo) {
  const Model model = golden_model("llama_gqa");  // 128 positions, 97 tokens
  const Generator generator(model, {.slots = 2});
  const auto run = [&](std::vector<int32_t> prompt, int64_t count) {
    generator.run({{std::move(prompt), count, 0}}, sampled(0), 1, 0);
  };
  EXPECT_THROW(run({}, 4), UserError);
  EXPECT_THROW(run({5}, 0), UserError);
  EXPECT_THROW(run({97}, 4), UserError);
  EXPECT_THROW(run({-1}, 4), UserError);
  EXPECT_THROW(run(std::vector<int32_t>(120, 5), 9), UserError);
  EXPECT_NO_THROW(run(std::vector<int32_t>(120, 5), 8));
}

// Sequences of more than 100 tokens turn their positions otherwise, those of before too: an answer that crosses that
// length would have been computed with what no longer holds.
TEST(Generator, RefusesToCrossTheLengthWherePositionsTurnOtherwise) {
  const Model model = golden_model("phi3_longrope");
  const Generator generator(model, {.slots = 2});
  const auto run = [&](size_t prompt, int64_t count) {
    generator.run({{std::vector<int32_t>(prompt, 5), count, 0}}, sampled(0), 1, 0);
  };
  EXPECT_NO_THROW(run(90, 10));
  EXPECT_THROW(run(90, 11), UserError);
  EXPECT_THROW(run(100, 1), UserError);
  EXPECT_NO_THROW(run(101, 5));
}

}  // namespace
}  // namespace dsengine
