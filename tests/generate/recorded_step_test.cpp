// Steps that are recorded and done again (recorded_step.h), on the host: the same answers, bit for bit, as by forwards
// made anew.
#include "generate/recorded_step.h"

#include <gtest/gtest.h>

#include "generate/scheduler.h"
#include "model/golden_models.h"

namespace dsengine {
namespace {

class Recorded : public testing::TestWithParam<std::string> {};

TEST_P(Recorded, StepsAnswerTheSame) {
  const Model model = golden_model(GetParam());
  const auto prompts = random_sequences({1, 17, 3, 8, 2, 30, 5}, int32_t(model.graph().vocabulary));
  std::vector<GenerationRequest> requests;
  for (const auto& p : prompts)  // answers end at different steps, so that the rows become fewer and more
    requests.push_back({.prompt = p,
                        .max_new_tokens = 3 + 11 * int64_t(requests.size() % 3),
                        .samples = 1 + int64_t(requests.size() % 2),
                        .sampling = {.temperature = 0.9},
                        .seed = 5,
                        .row = 2 * requests.size()});
  const auto answered = [&](bool record, int64_t slots) {
    Scheduler scheduler(model, {.slots = slots}, record);
    auto answers = generate(scheduler, requests);
    scheduler.release();
    const auto again = generate(scheduler, requests);
    for (size_t i = 0; i < answers.size(); ++i) EXPECT_EQ(answers[i].tokens, again[i].tokens);
    return answers;
  };
  const auto plain = answered(false, 64);
  for (const int64_t slots : {1, 3, 64}) {
    const auto recorded = answered(true, slots);
    ASSERT_EQ(recorded.size(), plain.size());
    for (size_t i = 0; i < plain.size(); ++i) {
      EXPECT_EQ(recorded[i].tokens, plain[i].tokens) << slots << " slots, " << i;
      EXPECT_EQ(recorded[i].logp, plain[i].logp) << slots << " slots, " << i;
    }
  }
}

// A prompt of one token is read by a step, whose logits wait for its samples while others are made.
TEST(RecordedStep, WhatWaitsIsNotOverwritten) {
  const Model model = golden_model("llama_gqa");
  const std::vector<GenerationRequest> requests{
      {.prompt = {5}, .max_new_tokens = 9, .samples = 4, .sampling = {.temperature = 0.9}, .seed = 5},
      {.prompt = {7}, .max_new_tokens = 5, .samples = 3, .sampling = {.temperature = 0.9}, .seed = 5, .row = 4}};
  Scheduler plain(model, {.slots = 64}, false), recorded(model, {.slots = 1}, true);
  const auto a = generate(plain, requests), b = generate(recorded, requests);
  for (size_t i = 0; i < a.size(); ++i) EXPECT_EQ(a[i].tokens, b[i].tokens) << i;
}

INSTANTIATE_TEST_SUITE_P(Golden, Recorded, testing::ValuesIn(golden_names("causal_lm")),
                         [](const auto& info) { return info.param; });

TEST(RecordedStep, ItsRowsAreAFewSizes) {
  const std::vector<std::pair<int64_t, int64_t>> cases{{1, 1},   {2, 2},    {3, 4},     {33, 64},  {64, 64},
                                                       {65, 96}, {97, 128}, {130, 192}, {200, 256}};
  for (const auto& [sequences, rows] : cases) EXPECT_EQ(RecordedStep::bucket_of(sequences), rows);
}

}  // namespace
}  // namespace dsengine
