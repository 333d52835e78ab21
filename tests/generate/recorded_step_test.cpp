// Steps that are recorded and done again (recorded_step.h), on the host: the same answers, bit for bit, as by forwards
// made anew.
#include "generate/recorded_step.h"

#include <gtest/gtest.h>

#include <map>
#include <set>

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

// Recorded steps are queued before the tokens of the last one are read: ends are found late, by tokens and by strings,
// filters want the host in between, prompts enter meanwhile. Nothing of it is to be seen in the answers.
TEST(RecordedStep, AnswersDoNotTellThatTheyAreReadLate) {
  const Model model = golden_model("llama_gqa");
  const auto vocabulary = int32_t(model.graph().vocabulary);
  std::vector<GenerationRequest> requests;
  for (const auto& p : random_sequences({4, 9, 1, 12, 6, 3, 7, 5, 2, 8}, vocabulary)) {
    GenerationRequest request{.prompt = p, .max_new_tokens = 14, .samples = 1 + int64_t(requests.size() % 3)};
    request.sampling = {.temperature = requests.size() == 4 ? 0.0 : 0.9};
    if (requests.size() % 5 == 2) request.sampling.top_k = 7, request.max_new_tokens = requests.size() == 2 ? 1 : 6;
    request.seed = 5, request.row = 3 * requests.size();
    for (int32_t id = 0; id < vocabulary; id += 9) request.eos.push_back(id);  // one of nine ends an answer
    requests.push_back(std::move(request));
  }
  std::set<Finish> met;
  Scheduler plain(model, {.slots = 64}, false);
  const auto expected = generate(plain, requests);
  for (const int64_t slots : {1, 2, 5, 64}) {
    Scheduler late(model, {.slots = slots}, true);
    const auto answers = generate(late, requests);
    for (size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(answers[i].tokens, expected[i].tokens) << slots << " slots, " << i;
      EXPECT_EQ(answers[i].logp, expected[i].logp) << slots << " slots, " << i;
      EXPECT_EQ(answers[i].finish, expected[i].finish) << slots << " slots, " << i;
      met.insert(answers[i].finish);
    }
    EXPECT_EQ(late.decoder().cache().free_blocks(), late.decoder().cache().blocks());
  }
  EXPECT_EQ(met, (std::set<Finish>{Finish::eos, Finish::length}));
}

TEST(RecordedStep, WhatIsCancelledLeavesTheOthers) {
  const Model model = golden_model("llama_gqa");
  const auto prompts = random_sequences({4, 9, 6}, int32_t(model.graph().vocabulary));
  const auto request = [&](size_t i) {
    return GenerationRequest{.prompt = prompts[i], .max_new_tokens = 12, .sampling = {.temperature = 0.9}, .row = i};
  };
  Scheduler plain(model, {}, false), late(model, {}, true);
  const auto expected = generate(plain, {request(0), request(2)});
  std::map<RequestId, std::vector<int32_t>> told;
  for (size_t i = 0; i < prompts.size(); ++i) late.submit(request(i));
  for (int step = 0; !late.idle(); ++step) {
    for (const Event& event : late.step()) told[event.request].push_back(event.token);
    if (step == 5) late.cancel(1);
  }
  EXPECT_EQ(told[0], expected[0].tokens);
  EXPECT_EQ(told[2], expected[1].tokens);
  EXPECT_EQ(told[1].size(), 5u) << "a step late, and none after it was cancelled";
  EXPECT_EQ(late.decoder().cache().free_blocks(), late.decoder().cache().blocks());
}

// A request of which some samples have not begun leaves nothing behind.
TEST(RecordedStep, WhatIsCancelledHalfBegunIsHandedBack) {
  const Model model = golden_model("llama_gqa");
  Scheduler late(model, {.slots = 2}, true);
  const auto id = late.submit({.prompt = {5, 6, 7}, .max_new_tokens = 9, .samples = 5});
  late.step(), late.step();
  late.cancel(id);
  EXPECT_TRUE(late.idle());
  late.release();
  EXPECT_EQ(late.decoder().cache().blocks(), 0);
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
