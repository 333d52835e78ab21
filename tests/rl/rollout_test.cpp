// Rollouts beside the model's own forward: greedy answers token by token, log-probabilities, draws that do not depend
// on who stands beside them, ends, and what is recorded.
#include "rl/rollout.h"

#include <gmock/gmock.h>

#include <algorithm>

#include "rl/tiny_rollouts.h"

namespace dsengine {
namespace {

using testing::AllOf;
using testing::HasSubstr;

class Rollouts : public TinyRollouts {
 protected:
  Rollouts() { config.samples_per_prompt = 1, config.max_response_length = 12; }
  // Logits behind the whole of `ids`, [V], from a forward without a cache.
  at::Tensor logits_behind(const std::vector<TokenId>& ids) const {
    at::NoGradGuard no_grad;
    const at::Tensor hidden = actor.hidden(pack_all({ids}));
    return actor.logits(hidden.narrow(0, int64_t(ids.size()) - 1, 1))[0];
  }
  static std::vector<std::vector<TokenId>> tokens_of(const std::vector<Answered>& answers) {
    std::vector<std::vector<TokenId>> all;
    for (const auto& a : answers) all.push_back(a.answer.tokens);
    return all;
  }
};

void expect_same(const std::vector<Answered>& a, const std::vector<Answered>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t i = 0; i < a.size(); ++i) {
    EXPECT_EQ(a[i].example, b[i].example);
    EXPECT_EQ(a[i].prompt_id, b[i].prompt_id);
    EXPECT_EQ(a[i].answer.tokens, b[i].answer.tokens);
    EXPECT_EQ(a[i].answer.logp, b[i].answer.logp);
    EXPECT_EQ(a[i].answer.finish, b[i].answer.finish);
  }
}

TEST_F(Rollouts, ATemperatureOfZeroTakesTheGreatestLogit) {
  config.temperature = 0;
  const auto answers = rollout().generate(prompts(3), 0);
  for (const auto& answered : answers) {
    std::vector<TokenId> ids = answered.example->prompt;
    for (const auto token : answered.answer.tokens) {
      EXPECT_EQ(token, logits_behind(ids).argmax().item<int64_t>());
      ids.push_back(token);
    }
  }
  EXPECT_NE(answers[0].answer.tokens, answers[1].answer.tokens) << "they say something of their prompts";
  expect_same(rollout().generate_greedy(prompts(3)), answers);
}

// 1e-5: float32 logits of magnitude below 4, summed over 96 products in another order by the cached forward, and a
// logarithm of a sum over 768; what is off by a token or a temperature is off by 0.01 and more.
TEST_F(Rollouts, LogProbabilitiesAreTheForwards) {
  for (const double temperature : {1.0, 0.5}) {
    config.temperature = temperature;
    for (const auto& answered : rollout().generate(prompts(4), 0)) {
      std::vector<TokenId> ids = answered.example->prompt;
      for (size_t t = 0; t < answered.answer.tokens.size(); ++t) {
        const TokenId token = answered.answer.tokens[t];
        const at::Tensor logp = at::log_softmax(logits_behind(ids).to(at::kDouble) / temperature, 0);
        EXPECT_NEAR(answered.answer.logp[t], logp[token].item<double>(), 1e-5);
        ids.push_back(token);
      }
    }
  }
}

TEST_F(Rollouts, AnswersDoNotDependOnWhoStandsBesideThem) {
  const auto whole = rollout().generate(prompts(6), 3);
  config.slots = 2;
  scheduler.set_limits(limits_of(config));
  expect_same(rollout().generate(prompts(6), 3), whole);
  // A prompt's place names its draws: the first ones alone are the first ones among many.
  expect_same(rollout().generate(prompts(2), 3), {whole.begin(), whole.begin() + 2});
  EXPECT_NE(tokens_of(rollout().generate(prompts(6), 4)), tokens_of(whole)) << "another step draws others";
  EXPECT_NE(tokens_of(rollout(12).generate(prompts(6), 3)), tokens_of(whole)) << "and so does another seed";
}

TEST_F(Rollouts, SamplesOfAPromptAreAdjacentAndApart) {
  config.samples_per_prompt = 3;
  const auto answers = rollout().generate(prompts(4), 0);
  ASSERT_EQ(answers.size(), 12u);
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_EQ(answers[i].prompt_id, int64_t(i / 3));
    EXPECT_EQ(answers[i].example, &data[i / 3]);
  }
  const auto tokens = tokens_of(answers);
  EXPECT_NE(tokens[0], tokens[1]);
  EXPECT_NE(tokens[1], tokens[2]);
}

// An end token that the model is to be drawn now and then: one that its plain answers hold.
TEST_F(Rollouts, AnswersEndAtAnEndTokenOrTheirLength) {
  const auto plain = rollout().generate(prompts(8), 0);
  for (const auto& a : plain) EXPECT_LE(a.answer.tokens.size(), 12u);
  TextModel ending = text;
  ending.eos = {plain[0].answer.tokens[4]};
  const Rollout ends(scheduler, ending, config, 11);
  const auto answers = ends.generate(prompts(8), 0);
  const auto scored = ends.to_score(answers);
  int64_t by_end = 0, by_length = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    const auto &tokens = answers[i].answer.tokens, &all = plain[i].answer.tokens;
    const auto end = std::find(all.begin(), all.end(), ending.eos[0]);
    if (end == all.end()) {
      EXPECT_EQ(answers[i].answer.finish, all.size() == 12 ? Finish::length : plain[i].answer.finish);
      by_length += all.size() == 12;
      continue;
    }
    ++by_end;
    EXPECT_EQ(tokens, std::vector<TokenId>(all.begin(), end + 1)) << "the end belongs to the answer";
    EXPECT_EQ(answers[i].answer.finish, Finish::eos);
    EXPECT_EQ(scored[i].reply, text.tokenizer.decode({tokens.data(), tokens.size() - 1}, true)) << "not to the reply";
    EXPECT_EQ(scored[i].answer_size, int64_t(tokens.size()));
  }
  EXPECT_GT(by_end, 0);
  EXPECT_GT(by_length, 0);
}

TEST_F(Rollouts, StopAtStringsAndTokens) {
  config.max_response_length = 24, config.samples_per_prompt = 1;
  const auto plain = rollout().generate(prompts(12), 0);
  const std::string e = "e";
  const auto without = [&](TokenId id) { return text.tokenizer.decode({{id}}, true).find(e) == std::string::npos; };
  config.stop = {e}, config.stop_token_ids = {*std::ranges::find_if(plain[0].answer.tokens, without)};
  const auto stopped = rollout().generate(prompts(12), 0);
  const auto scored = rollout().to_score(stopped);
  int64_t by_text = 0, by_token = 0;
  for (size_t i = 0; i < stopped.size(); ++i) {
    // The same draws: what comes is the plain answer's beginning, up to the first token that completes a stop.
    const auto &all = plain[i].answer.tokens, &own = stopped[i].answer.tokens;
    size_t n = 1;
    const auto ends = [&](size_t count) {
      return all[count - 1] == config.stop_token_ids[0] ||
             text.tokenizer.decode(std::span(all).first(count), true).find(e) != std::string::npos;
    };
    while (n < all.size() && !ends(n)) ++n;
    ASSERT_EQ(own, std::vector<TokenId>(all.begin(), all.begin() + int64_t(n))) << i;
    if (!ends(n)) {
      EXPECT_EQ(stopped[i].answer.finish, plain[i].answer.finish);
      continue;
    }
    EXPECT_EQ(stopped[i].answer.finish, Finish::stop);
    EXPECT_EQ(scored[i].finish, Finish::stop);
    EXPECT_EQ(scored[i].answer_size, int64_t(n));
    const std::string said = text.tokenizer.decode(own, true);
    const bool token = own.back() == config.stop_token_ids[0];
    by_token += token, by_text += !token;
    EXPECT_EQ(scored[i].reply,
              token ? text.tokenizer.decode(std::span(own).first(n - 1), true) : said.substr(0, said.find(e)));
  }
  EXPECT_GT(by_text, 0);
  EXPECT_GT(by_token, 0);
  const Experience kept = Rollout::experience(stopped, std::vector<AnswerScore>(stopped.size()));
  EXPECT_GT(std::ranges::count(kept.finish, DSE_FINISH_STOP), 0);
}

// The settings reach the sampler: the rollout's answers are the generator's under them.
TEST_F(Rollouts, SampleAsTheyAreTold) {
  config.samples_per_prompt = 1, config.max_response_length = 12;
  const auto answers_of = [&] {
    std::vector<std::vector<TokenId>> all;
    for (const auto& a : rollout().generate(prompts(4), 0)) all.push_back(a.answer.tokens);
    return all;
  };
  const auto by_generator = [&](const SamplingOptions& sampling) {
    std::vector<GenerationRequest> requests;
    for (const auto* p : prompts(4))
      requests.push_back({.prompt = p->prompt,
                          .max_new_tokens = config.max_response_length,
                          .sampling = sampling,
                          .eos = text.eos,
                          .seed = 11,
                          .row = requests.size()});
    std::vector<std::vector<TokenId>> all;
    for (const auto& g : generate(scheduler, requests)) all.push_back(g.tokens);
    return all;
  };
  const auto plain = answers_of();
  EXPECT_FALSE(sampling_of(config).filters());
  config.min_p = 0.9;
  EXPECT_EQ(answers_of(), by_generator({.min_p = 0.9}));
  EXPECT_NE(answers_of(), plain);
  EXPECT_TRUE(sampling_of(config).filters());
  config.min_p = 0, config.repetition_penalty = 3;
  EXPECT_EQ(answers_of(), by_generator({.repetition_penalty = 3}));
  EXPECT_NE(answers_of(), plain);
  EXPECT_TRUE(sampling_of(config).filters());
  std::vector<std::vector<TokenId>> greedy;
  for (const auto& a : rollout().generate_greedy(prompts(4))) greedy.push_back(a.answer.tokens);
  EXPECT_EQ(greedy, by_generator({.temperature = 0, .repetition_penalty = 3}));
}

TEST_F(Rollouts, WhatIsRecordedIsReplayed) {
  config.samples_per_prompt = 2, config.record = folder / "recorded";
  const auto answers = rollout().generate(prompts(3), 7);
  config.record.clear(), config.replay = folder / "recorded";
  expect_same(rollout(99).generate(prompts(3), 7), answers);  // nothing is drawn
  EXPECT_THAT(error_of([&] { rollout().generate(prompts(3), 8); }), HasSubstr("step-00000008.json"));
  EXPECT_THAT(error_of([&] { rollout().generate(prompts(3, 1), 7); }), HasSubstr("recorded from other prompts"));
  const auto file = folder / "recorded/step-00000007.json";
  const Json rows = read_json(file);
  const auto damaged = [&](const char* key, const Json& value) {
    Json changed = rows;
    changed[1][key] = value;
    write_text(file, changed.dump());
    return error_of([&] { rollout().generate(prompts(3), 7); });
  };
  const auto here = HasSubstr(file.string());
  EXPECT_THAT(damaged("output_ids", {1, 768}), AllOf(here, HasSubstr("an answer of prompt 0 is damaged")));
  EXPECT_THAT(damaged("output_ids", Json::array()), AllOf(here, HasSubstr("is damaged")));
  EXPECT_THAT(damaged("finish", 9), AllOf(here, HasSubstr("is damaged")));
  EXPECT_THAT(damaged("logprobs", "none"), AllOf(here, HasSubstr("not a recorded rollout")));
}

TEST_F(Rollouts, RowsWithoutAScoreAreNoExperience) {
  const auto answers = rollout().generate(prompts(3), 0);
  const Experience e = Rollout::experience(answers, {{1.5f}, {NAN}, {-2}});
  EXPECT_EQ(e.score, (std::vector<float>{1.5f, -2}));
  EXPECT_EQ(e.prompt, (std::vector<int64_t>{0, 2}));
  EXPECT_EQ(e.rows[1]->rollout_logp, answers[2].answer.logp);
  EXPECT_EQ(e.rows[1]->answer_begin, int64_t(data[2].prompt.size()));
  EXPECT_EQ(e.rows[1]->answer_size(), int64_t(answers[2].answer.tokens.size()));
}

}  // namespace
}  // namespace dsengine
