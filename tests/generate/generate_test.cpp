// Generation: transformers' greedy tokens, the same answers whatever the batch and slots, log-probs equal to
// the training forward's, and how answers end.
#include "generate/training_bits.h"

#include <gtest/gtest.h>

#include <map>

#include "base/check.h"
#include "memory/counting_allocator.h"
#include "memory/ledger.h"
#include "model/golden_models.h"

namespace dsengine {
namespace {

std::vector<GenerationRequest> requests_of(const std::vector<std::vector<int32_t>>& prompts, int64_t new_tokens,
                                           double temperature, std::vector<int32_t> eos = {}) {
  std::vector<GenerationRequest> requests;
  for (const auto& p : prompts)
    requests.push_back({.prompt = p,
                        .max_new_tokens = new_tokens,
                        .sampling = {.temperature = temperature},
                        .eos = eos,
                        .seed = 1,
                        .row = requests.size()});
  return requests;
}

std::vector<Generation> answers_of(const Model& model, const std::vector<GenerationRequest>& requests,
                                   Scheduler::Limits limits) {
  Scheduler scheduler(model, limits);
  return generate(scheduler, requests);
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
    const auto answers = answers_of(model, requests_of(given, 40, 0), {.slots = slots});
    for (size_t i = 0; i < answers.size(); ++i)
      EXPECT_EQ(answers[i].tokens, golden_cases[i].at("greedy").get<std::vector<int32_t>>())
          << slots << " slots, " << i;
  }
}

// Continuous batching: rows enter and leave at different times, alone or among others, and every token and
// log-probability keeps its bits.
TEST_P(Generation_, AnswersDoNotDependOnTheBatch) {
  auto requests = requests_of(prompts, 0, 1, {7, 11});
  for (size_t i = 0; i < requests.size(); ++i) requests[i].max_new_tokens = 3 + int64_t(i * 5 % 17);
  const auto expected = answers_of(model, requests, {.slots = 12});
  for (const auto& [slots, prefill] :
       std::vector<std::pair<int64_t, int64_t>>{{1, 8192}, {2, 20}, {3, 1}, {5, 8192}, {8, 40}}) {
    const auto answers = answers_of(model, requests, {.slots = slots, .prefill_tokens = prefill});
    for (size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(answers[i].tokens, expected[i].tokens) << slots << " slots, request " << i;
      EXPECT_EQ(answers[i].logp, expected[i].logp) << slots << " slots, request " << i;
      EXPECT_EQ(answers[i].finish, expected[i].finish);
    }
  }
}

// The memory of keys and values is handed back when nothing is in flight, and what is answered then is the same.
TEST_P(Generation_, ReleasedMemoryIsTakenAgain) {
  Ledger& ledger = Ledger::host();
  count_host_memory();
  const int64_t before = ledger.now(MemoryTag::kv_cache);
  const auto requests = requests_of(prompts, 6, 1);
  const auto expected = answers_of(model, requests, {.slots = 12});
  Scheduler scheduler(model, {.slots = 4});
  scheduler.submit(requests[0]);
  scheduler.step();
  scheduler.release();  // an answer is in flight
  EXPECT_GT(ledger.now(MemoryTag::kv_cache), before);
  while (!scheduler.idle()) scheduler.step();
  int64_t blocks = 0, bytes = 0;
  for (int round = 0; round < 2; ++round) {
    const auto answers = generate(scheduler, requests);
    for (size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(answers[i].tokens, expected[i].tokens) << i;
      EXPECT_EQ(answers[i].logp, expected[i].logp) << i;
    }
    if (round == 0) blocks = scheduler.decoder().cache().blocks(), bytes = ledger.now(MemoryTag::kv_cache);
    EXPECT_EQ(scheduler.decoder().cache().blocks(), blocks);
    EXPECT_EQ(ledger.now(MemoryTag::kv_cache), bytes);
    scheduler.release();
    EXPECT_EQ(scheduler.decoder().cache().blocks(), 0);
    EXPECT_EQ(ledger.now(MemoryTag::kv_cache), before);
  }
}

// What the rollout says of its tokens is what training computes, bit for bit: whatever the slots, the prompts' pieces,
// the samples of a prompt, the temperature, and the batch that the training forward has.
TEST_P(Generation_, LogProbsAreTheTrainingForwards) {
  Model adapted = golden_model(GetParam());
  adapted.add_adapter({.rank = 4, .alpha = 8, .targets = {"all"}}, 1);
  {
    const at::NoGradGuard no_grad;
    for (auto* unit : adapted.units())
      if (unit->name().starts_with("adapter.")) at::Tensor(unit->flat()).normal_(0, 0.2);
  }
  for (const Model* m : {&std::as_const(model), &std::as_const(adapted)})
    for (const double temperature : {1.0, 0.6}) {
      ASSERT_TRUE(m->exact_rollouts());
      auto requests = requests_of(prompts, 20, temperature);
      for (auto& request : requests) request.samples = 3, request.row *= 3;
      const auto answers = answers_of(*m, requests, {.slots = 5, .prefill_tokens = 3});
      for (const size_t together : {1, 4}) expect_training_bits(*m, requests, answers, together);
    }
}

// The reference alone, and a model of which one kernel makes no promise: float32 rounding, and the engine knows.
TEST(ExactRollouts, AreAFactOfTheKernels) {
  EXPECT_FALSE(golden_model("llama_gqa", ModelKind::language, at::kFloat, reference_kernels()).exact_rollouts());
  const std::string library = std::string(DSE_BINARY_DIR) + "/tests/abi/libdse_counting_kernel.so";
  const PluginRegistry registry({std::string(DSE_BINARY_DIR) + "/lib/dsengine"}, {{library, ""}}, {});
  const Kernels kernels(registry, Device::host());
  const Model mixed = golden_model("llama_gqa", ModelKind::language, at::kFloat, kernels);
  EXPECT_FALSE(mixed.exact_rollouts());
  EXPECT_TRUE(golden_model("gpt2", ModelKind::language, at::kFloat, kernels).exact_rollouts());  // it has other norms
  EXPECT_FALSE(golden_model("llama_reward", ModelKind::value).exact_rollouts());
}

INSTANTIATE_TEST_SUITE_P(Golden, Generation_, testing::ValuesIn(golden_names("causal_lm")),
                         [](const auto& info) { return info.param; });

TEST(Scheduler, DrawsDependOnSeedStepAndRowAlone) {
  const Model model = golden_model("llama_gqa");
  const std::vector<int32_t> prompt{5, 6, 7};
  const auto run = [&](uint64_t seed, uint64_t step, uint64_t row) {
    return answers_of(model, {{.prompt = prompt, .max_new_tokens = 16, .seed = seed, .step = step, .row = row}},
                      {.slots = 4})[0]
        .tokens;
  };
  EXPECT_EQ(run(1, 2, 3), run(1, 2, 3));
  EXPECT_NE(run(1, 2, 3), run(2, 2, 3));
  EXPECT_NE(run(1, 2, 3), run(1, 3, 3));
  EXPECT_NE(run(1, 2, 3), run(1, 2, 4));
}

TEST(Scheduler, SaysHowAnAnswerEnded) {
  const Model model = golden_model("llama_gqa");
  const std::vector<int32_t> prompt{5, 6, 7};
  const auto answer = [&](int64_t count, std::vector<int32_t> eos, const Stops* stops = nullptr) {
    auto requests = requests_of({prompt}, count, 0, std::move(eos));
    requests[0].stops = stops;
    return answers_of(model, requests, {.slots = 1})[0];
  };
  const auto greedy = answer(12, {});
  ASSERT_EQ(greedy.tokens.size(), 12u);
  EXPECT_EQ(greedy.finish, Finish::length);

  const int32_t end = greedy.tokens[4];
  size_t first = 0;
  while (greedy.tokens[first] != end) ++first;
  const auto ended = answer(12, {96, end});
  EXPECT_EQ(ended.finish, Finish::eos);
  EXPECT_EQ(ended.tokens.size(), first + 1);  // the ending token belongs to the answer
  EXPECT_EQ(ended.tokens.back(), end);

  const auto tokenizer = Tokenizer::from_directory(golden("tokenizers/small/llama3_style"));
  const Stops stops(tokenizer, {}, {end});
  const auto stopped = answer(12, {}, &stops);
  EXPECT_EQ(stopped.finish, Finish::stop);
  EXPECT_EQ(stopped.tokens.size(), first + 1);
  // An end token as the very last one allowed is an end, not a cut.
  EXPECT_EQ(answer(int64_t(first) + 1, {end}).finish, Finish::eos);
}

// A prompt goes through the model once for all its samples, which draw apart, whatever the slots; its own samples are
// those of as many requests.
TEST(Scheduler, ReadsAPromptOnceForAllItsSamples) {
  const Model model = golden_model("llama_gqa");
  const auto prompts = random_sequences({21, 16, 5}, 97);
  for (const int64_t slots : {64, 16, 5, 1}) {
    std::vector<GenerationRequest> together, apart;
    for (const auto& prompt : prompts) {
      together.push_back({.prompt = prompt, .max_new_tokens = 6, .samples = 16, .seed = 3, .row = apart.size()});
      for (int i = 0; i < 16; ++i)
        apart.push_back({.prompt = prompt, .max_new_tokens = 6, .seed = 3, .row = apart.size()});
    }
    Scheduler one(model, {.slots = slots}), other(model, {.slots = slots});
    const auto answers = generate(one, together), expected = generate(other, apart);
    ASSERT_EQ(answers.size(), expected.size());
    for (size_t i = 0; i < answers.size(); ++i) {
      EXPECT_EQ(answers[i].tokens, expected[i].tokens) << slots << " slots, " << i;
      EXPECT_EQ(answers[i].logp, expected[i].logp);
    }
    const int64_t decoded = 48 * 5;  // the first token of an answer comes with the prompt
    EXPECT_EQ(one.decoder().forwarded(), 21 + 16 + 5 + decoded);
    EXPECT_EQ(other.decoder().forwarded(), 16 * (21 + 16 + 5) + decoded);
  }
}

// The arena outlives what was asked, and all of it is free again, after answers and after cancelled ones.
TEST(Scheduler, GivesItsBlocksBack) {
  const Model model = golden_model("llama_gqa");
  Scheduler scheduler(model, {.slots = 3});
  std::vector<GenerationRequest> requests = requests_of(random_sequences({30, 4, 17, 9, 16}, 97), 9, 1);
  for (auto& r : requests) r.samples = 2;
  const auto expected = generate(scheduler, requests);
  const int64_t blocks = scheduler.decoder().cache().blocks();
  EXPECT_GT(blocks, 0);
  EXPECT_EQ(scheduler.decoder().cache().free_blocks(), blocks);

  std::vector<RequestId> ids;
  for (const auto& r : requests) ids.push_back(scheduler.submit(r));
  scheduler.step(), scheduler.step();
  for (const auto id : {ids[1], ids[0], ids[4]}) scheduler.cancel(id);
  std::map<std::pair<RequestId, int64_t>, std::vector<int32_t>> tokens;
  while (!scheduler.idle())
    for (const auto& e : scheduler.step()) tokens[{e.request, e.sample}].push_back(e.token);
  EXPECT_EQ(scheduler.decoder().cache().free_blocks(), scheduler.decoder().cache().blocks());
  EXPECT_EQ(scheduler.decoder().cache().blocks(), blocks);
  EXPECT_EQ((tokens[{ids[3], 0}]), expected[6].tokens);
  EXPECT_EQ((tokens[{ids[3], 1}]), expected[7].tokens);
  EXPECT_FALSE(tokens.contains({ids[4], 0}));

  // Where whoever listens throws, too.
  const auto listen = [](size_t answer, const Event&) { DSE_CHECK(answer < 3, "no more"); };
  EXPECT_THROW(generate(scheduler, requests, listen), InternalError);
  EXPECT_TRUE(scheduler.idle());
  EXPECT_EQ(scheduler.decoder().cache().free_blocks(), blocks);
}

// No more memory than the answers in flight and the prompts read beside them may come to need.
TEST(Scheduler, TakesTheBlocksThatItNeeds) {
  const Model model = golden_model("llama_gqa");
  Scheduler scheduler(model, {.slots = 4});
  generate(scheduler, {{.prompt = {5, 6}, .max_new_tokens = 100}});
  EXPECT_EQ(scheduler.decoder().cache().blocks(), 1 + 7);  // of 16 tokens
  generate(scheduler, requests_of(random_sequences({30, 2, 40, 5, 30, 60, 1, 1, 1}, 97), 9, 1));
  EXPECT_EQ(scheduler.decoder().cache().blocks(), 4 * 5 + (2 + 4 + 1 + 1));  // all of the first four end at once
}

TEST(Scheduler, RefusesWhatTheModelCannotDo) {
  const Model model = golden_model("llama_gqa");  // 128 positions, 97 tokens
  const auto run = [&](const std::vector<int32_t>& prompt, int64_t count) {
    answers_of(model, requests_of({prompt}, count, 0), {.slots = 2});
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
TEST(Scheduler, RefusesToCrossTheLengthWherePositionsTurnOtherwise) {
  const Model model = golden_model("phi3_longrope");
  const auto run = [&](size_t prompt, int64_t count) {
    answers_of(model, requests_of({std::vector<int32_t>(prompt, 5)}, count, 0), {.slots = 2});
  };
  EXPECT_NO_THROW(run(90, 10));
  EXPECT_THROW(run(90, 11), UserError);
  EXPECT_THROW(run(100, 1), UserError);
  EXPECT_NO_THROW(run(101, 5));
}

// All pieces of a prompt beyond that length turn as the whole does.
TEST(Scheduler, ReadsALongPromptInPiecesAsAtOnce) {
  const Model model = golden_model("phi3_longrope");
  for (const int64_t length : {90, 110}) {
    const auto requests = requests_of(random_sequences({length}, int32_t(model.graph().vocabulary)), 8, 0);
    const auto whole = answers_of(model, requests, {.slots = 1})[0];
    for (const int64_t piece : {1, 60, 105}) {
      const auto pieces = answers_of(model, requests, {.slots = 1, .prefill_tokens = piece})[0];
      EXPECT_EQ(pieces.tokens, whole.tokens) << length << " tokens, pieces of " << piece;
      EXPECT_EQ(pieces.logp, whole.logp);
    }
  }
}

// What generation samples by is what training computes, adapter included, whatever the number of slots.
TEST(Adapter, RolloutsIncludeIt) {
  Model model = golden_model("llama_gqa");
  std::vector<GenerationRequest> requests;
  for (const auto& prompt : random_sequences({5, 9, 3, 12}, 97))
    requests.push_back({.prompt = prompt, .max_new_tokens = 8, .seed = 5, .row = requests.size()});
  Scheduler four(model, {.slots = 4}), one(model, {.slots = 1});
  const auto base = generate(four, requests);
  model.add_adapter({.rank = 4, .alpha = 8, .targets = {"all"}}, 1);
  {
    const at::NoGradGuard no_grad;
    at::manual_seed(7);
    for (auto* unit : model.units())
      if (unit->name().starts_with("adapter.")) at::Tensor(unit->flat()).normal_(0, 0.2);
  }
  const auto adapted = generate(four, requests), alone = generate(one, requests);
  bool moved = false;
  for (size_t i = 0; i < requests.size(); ++i) {
    moved |= base[i].tokens != adapted[i].tokens;
    EXPECT_EQ(alone[i].tokens, adapted[i].tokens);
    std::vector<int32_t> sequence = requests[i].prompt;
    sequence.insert(sequence.end(), adapted[i].tokens.begin(), adapted[i].tokens.end());
    const Batch batch = pack_all({sequence});
    const auto first = int64_t(requests[i].prompt.size()) - 1, count = int64_t(adapted[i].tokens.size());
    const at::Tensor rows = at::arange(first, first + count, at::kLong);
    const at::Tensor logp =
        model.log_prob(model.hidden(batch), rows, batch.tokens.index_select(0, rows + 1), 1.0, false).logp;
    for (int64_t t = 0; t < count; ++t) EXPECT_NEAR(logp[t].item<float>(), adapted[i].logp[size_t(t)], 1e-5);
  }
  EXPECT_TRUE(moved);
}

}  // namespace
}  // namespace dsengine
