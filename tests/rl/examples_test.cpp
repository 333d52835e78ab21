// Records as tokens: what is prompt, what is answer, what is a target; how long ones are cut or dropped; the order of
// epochs; the learning rate. Hand-worked on the tiny task's tokenizer.
#include "rl/examples.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <map>
#include <numeric>
#include <set>

#include "base/check.h"
#include "base/json.h"
#include "rl/example_stream.h"
#include "rl/learner.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

class Examples : public testing::Test {
 protected:
  Examples() { fs::create_directories(folder); }
  ~Examples() override { fs::remove_all(folder); }

  ExampleSet load(const std::vector<std::string>& lines, uint32_t source, DataConfig config = {}) {
    write_lines(lines);
    return ExampleSet::load({from}, registry, text, config, source);
  }
  void write_lines(const std::vector<std::string>& lines) {
    std::string text_of_lines;
    for (std::string line : lines) {  // a record here may be written over several lines
      std::replace(line.begin(), line.end(), '\n', ' ');
      text_of_lines += line + "\n";
    }
    write_text(folder / "data.jsonl", text_of_lines);
    from.path = folder / "data.jsonl";
  }
  std::string decode(const std::vector<TokenId>& ids) const { return text.tokenizer.decode(ids, false); }
  // The text of an answer's targets.
  std::string targets(const AnswerTokens& a) const {
    std::vector<TokenId> ids;
    for (size_t i = 0; i < a.tokens.size(); ++i)
      if (a.mask[i]) ids.push_back(a.tokens[i]);
    return decode(ids);
  }

  const fs::path folder = fs::path(testing::TempDir()) / fmt::format("dse_examples_{}", getpid());
  DataSource from;
  const PluginRegistry registry{{fs::path(DSE_BINARY_DIR) / "lib/dsengine"}};
  const fs::path model = fs::path(DSE_SOURCE_DIR) / "examples/tiny/model";
  const TextModel text = TextModel::load(model, model);
  const std::string bos = text.tokenizer.decode(std::vector<TokenId>{*text.tokenizer.bos_id()}, false);
  const std::string eos = text.tokenizer.decode(std::vector<TokenId>{text.eos[0]}, false);
};

TEST_F(Examples, ACompletionIsTheTargetWithItsEnd) {
  const auto set = load({R"({"prompt": "Add 1 and 2.", "completion": "It is 3.", "source": "x"})"}, DSE_SOURCE_RECORDS);
  ASSERT_EQ(set.size(), 1u);
  EXPECT_EQ(decode(set[0].prompt), bos + "Human: Add 1 and 2.\nAssistant:");
  EXPECT_EQ(decode(set[0].answer.tokens), " It is 3." + eos);
  EXPECT_EQ(targets(set[0].answer), " It is 3." + eos);
  EXPECT_EQ(set[0].metadata, R"({"source":"x"})");
}

TEST_F(Examples, TrainOnAllLeavesTheFirstTokenAlone) {
  DataConfig config;
  config.train_on = TrainOn::all;
  const auto set = load({R"({"prompt": "Hi", "completion": "Yes"})"}, DSE_SOURCE_RECORDS, config);
  EXPECT_EQ(decode(set[0].prompt), bos);
  EXPECT_EQ(targets(set[0].answer), "Human: Hi\nAssistant: Yes" + eos);
}

TEST_F(Examples, AConversationTrainsItsAssistantTurns) {
  const auto set = load({R"({"messages": [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "No", "train": false}, {"role": "user", "content": "Why"},
    {"role": "assistant", "content": "Yes"}, {"role": "user", "content": "So"}, {"role": "assistant", "content": "Ok"}]})"},
                        DSE_SOURCE_RECORDS);
  EXPECT_EQ(decode(set[0].prompt), bos + "Be brief.\nHuman: Hi\nAssistant: No" + eos + "\nHuman: Why\nAssistant:");
  EXPECT_EQ(decode(set[0].answer.tokens), " Yes" + eos + "\nHuman: So\nAssistant: Ok" + eos);
  EXPECT_EQ(targets(set[0].answer), " Yes" + eos + " Ok" + eos);
}

TEST_F(Examples, PairsShareTheirPrompt) {
  const auto set = load({R"({"prompt": "Hi", "chosen": "Yes", "rejected": "No", "weight": 0.5})"}, DSE_SOURCE_PAIRS);
  EXPECT_EQ(decode(set[0].answer.tokens), " Yes" + eos);
  EXPECT_EQ(decode(set[0].rejected.tokens), " No" + eos);
  EXPECT_EQ(set[0].weight, 0.5);
  // Transcripts, as hh-rlhf has them: the turns that both share are the prompt.
  const auto hh = load({R"({"chosen": "\n\nHuman: A\n\nAssistant: B\n\nHuman: C\n\nAssistant: D",
                            "rejected": "\n\nHuman: A\n\nAssistant: B\n\nHuman: C\n\nAssistant: E"})"},
                       DSE_SOURCE_PAIRS);
  EXPECT_EQ(decode(hh[0].prompt), bos + "Human: A\nAssistant: B" + eos + "\nHuman: C\nAssistant:");
  EXPECT_EQ(decode(hh[0].answer.tokens), " D" + eos);
  EXPECT_EQ(decode(hh[0].rejected.tokens), " E" + eos);
}

TEST_F(Examples, SpecialTokensInTextAreTheTokenizersBusinessOfTheRecordAlone) {
  const auto set = load({R"({"prompt": "Hi", "completion": ""})"}, DSE_SOURCE_RECORDS);
  EXPECT_EQ(set[0].answer.tokens.back(), text.eos[0]);  // an empty answer still ends
  EXPECT_GE(set[0].answer.tokens.size(), 1u);
}

TEST_F(Examples, LongPromptsKeepTheirFirstTokenAndTheirEnd) {
  DataConfig config;
  config.max_prompt_length = 8;
  const auto set =
      load({R"({"prompt": "one two three four five six seven eight nine ten"})"}, DSE_SOURCE_ROLLOUT, config);
  ASSERT_EQ(set[0].prompt.size(), 8u);
  EXPECT_EQ(set[0].prompt[0], *text.tokenizer.bos_id());
  EXPECT_TRUE(decode(set[0].prompt).ends_with("\nAssistant:"));
}

TEST_F(Examples, TooLongRecordsAreDropped) {
  DataConfig config;
  config.max_length = 20;
  const std::string longer(200, 'x');
  const auto set =
      load({R"({"prompt": "Hi", "completion": "Yes"})", R"({"prompt": "Hi", "completion": ")" + longer + "\"}"},
           DSE_SOURCE_RECORDS, config);
  EXPECT_EQ(set.size(), 1u);
  config.max_length = 3;
  EXPECT_THROW(load({R"({"prompt": "Hi", "completion": "Yes"})"}, DSE_SOURCE_RECORDS, config), UserError);
}

TEST_F(Examples, HeldOutRowsAreChosenByContent) {
  std::vector<std::string> lines;
  for (int i = 0; i < 400; ++i) lines.push_back(fmt::format(R"({{"prompt": "question {}"}})", i % 200));
  auto set = load(lines, DSE_SOURCE_ROLLOUT);
  const auto off = set.split_off(0.25);
  EXPECT_NEAR(double(off.size()), 100, 50);
  std::set<std::string> kept, away;
  for (size_t i = 0; i < set.size(); ++i) kept.insert(set[i].prompt_text);
  for (size_t i = 0; i < off.size(); ++i) away.insert(off[i].prompt_text);
  for (const auto& t : away) EXPECT_FALSE(kept.contains(t)) << t;  // both copies of a prompt go together
  EXPECT_EQ(kept.size() + away.size(), 200u);
}

TEST_F(Examples, RecordsTooLongKeepTheAnswersBeginningWhereAsked) {
  DataConfig config;
  config.too_long = TooLong::truncate;
  const std::string record = R"({"prompt": "Hi", "completion": "Yes, it is. No, it is not."})";
  const auto whole = load({record}, DSE_SOURCE_RECORDS);
  const size_t prompt = whole[0].prompt.size();
  config.max_length = int64_t(prompt) + 3;
  const auto set = load({record}, DSE_SOURCE_RECORDS, config);
  ASSERT_EQ(set.size(), 1u);
  EXPECT_EQ(set[0].prompt, whole[0].prompt);
  const auto& tokens = whole[0].answer.tokens;
  EXPECT_EQ(set[0].answer.tokens, std::vector<TokenId>(tokens.begin(), tokens.begin() + 3));  // no end token
  EXPECT_EQ(set[0].answer.mask, std::vector<uint8_t>(3, 1));
  // A prompt that fills it leaves nothing to learn.
  config.max_length = int64_t(prompt);
  EXPECT_EQ(load({record, R"({"prompt": "", "completion": "A"})"}, DSE_SOURCE_RECORDS, config).size(), 1u);
  // Half a pair is no pair.
  config.max_length = int64_t(prompt) + 3;
  const std::string pair = R"({"prompt": "Hi", "chosen": "Yes", "rejected": "Yes, it is. No, it is not."})";
  EXPECT_EQ(load({pair, R"({"prompt": "", "chosen": "A", "rejected": "B"})"}, DSE_SOURCE_PAIRS, config).size(), 1u);
}

// The prompts of a part, as a stage that makes `source` of the records has them.
using Prompts = std::set<std::string>;
struct Splits : Examples {
  Prompts part(const std::vector<std::string>& lines, int64_t number, uint32_t source = DSE_SOURCE_ROLLOUT,
               uint64_t seed = 1, const std::vector<double>& split = {2, 4, 4}) {
    DataConfig config;
    config.split = split, config.part = number;
    write_lines(lines);
    const auto set = ExampleSet::load({from}, registry, text, config, source, Part::of(config, source, seed));
    Prompts prompts;
    for (size_t i = 0; i < set.size(); ++i) prompts.insert(set[i].prompt_text);
    return prompts;
  }
  static std::vector<std::string> questions(int count) {
    std::vector<std::string> lines;
    for (int i = 0; i < count; ++i) lines.push_back(fmt::format(R"({{"prompt": "question {}"}})", i));
    return lines;
  }
};

TEST_F(Splits, PartsAreDisjointAndWholeAndOfTheirShares) {
  const int count = 4000;
  auto lines = questions(count);
  const Prompts parts[] = {part(lines, 1), part(lines, 2), part(lines, 3)};
  Prompts all;
  for (int i = 0; i < 3; ++i) {
    const double share = i == 0 ? 0.2 : 0.4, deviation = std::sqrt(count * share * (1 - share));
    EXPECT_NEAR(double(parts[i].size()), count * share, 4 * deviation);
    all.insert(parts[i].begin(), parts[i].end());
  }
  EXPECT_EQ(all.size(), size_t(count));
  EXPECT_EQ(parts[0].size() + parts[1].size() + parts[2].size(), size_t(count));
  std::reverse(lines.begin(), lines.end());
  EXPECT_EQ(part(lines, 2), parts[1]);
  const Prompts other = part(lines, 2, DSE_SOURCE_ROLLOUT, 2);  // of 1600, 640 would be in both by chance
  Prompts both;
  std::set_intersection(other.begin(), other.end(), parts[1].begin(), parts[1].end(),
                        std::inserter(both, both.begin()));
  EXPECT_NEAR(double(both.size()), count * 0.16, 4 * std::sqrt(count * 0.16 * 0.84));
}

TEST_F(Splits, StagesOfEveryKindDivideTheSameRecordsAlike) {
  std::vector<std::string> pairs, forms;
  for (int i = 0; i < 300; ++i) {
    pairs.push_back(fmt::format(R"({{"prompt": "question {}", "chosen": "Yes", "rejected": "No {}"}})", i, i));
    forms.push_back(fmt::format(R"({{"messages": [{{"role": "system", "content": "{}"}}, {{"role": "user",
      "content": "question {}"}}, {{"role": "assistant", "content": "Yes"}}]}})",
                                i % 2 ? "Be brief." : "Be kind.", i));
  }
  const Prompts rollout = part(pairs, 2, DSE_SOURCE_ROLLOUT);
  EXPECT_EQ(part(pairs, 2, DSE_SOURCE_PAIRS), rollout);
  EXPECT_EQ(part(pairs, 2, DSE_SOURCE_RECORDS), rollout);
  EXPECT_EQ(part(pairs, 0, DSE_SOURCE_PAIRS), rollout);  // the second part is the pairs' own
  EXPECT_EQ(part(pairs, 0, DSE_SOURCE_RECORDS), part(pairs, 1));
  EXPECT_EQ(part(pairs, 0, DSE_SOURCE_ROLLOUT), part(pairs, 3));
  Prompts bare;  // a system's turn does not count
  for (const auto& prompt : part(forms, 2, DSE_SOURCE_RECORDS)) bare.insert(prompt.substr(prompt.find("Human:")));
  EXPECT_EQ(bare, rollout);
}

TEST_F(Splits, ConversationsWithOneOpeningStayTogether) {
  std::vector<std::string> lines;
  for (int i = 0; i < 200; ++i)
    lines.push_back(fmt::format(R"({{"messages": [{{"role": "user", "content": "opening {}"}}, {{"role": "assistant",
      "content": "Yes"}}, {{"role": "user", "content": "then {}"}}]}})",
                                i % 40, i));
  size_t sizes = 0;
  for (int number = 1; number <= 3; ++number) {
    std::map<std::string, int> openings;
    for (const auto& prompt : part(lines, number)) ++openings[prompt.substr(0, prompt.find("\n"))], ++sizes;
    for (const auto& [opening, times] : openings) EXPECT_EQ(times, 5) << opening;
  }
  EXPECT_EQ(sizes, 200u);
}

TEST_F(Splits, HeldOutRecordsComeFromWithinThePart) {
  const auto lines = questions(1000);
  DataConfig config;
  config.split = {1, 1};
  config.part = 2;
  write_lines(lines);
  auto set = ExampleSet::load({from}, registry, text, config, DSE_SOURCE_ROLLOUT, Part::of(config, 0, 1));
  const size_t whole = set.size();
  const auto off = set.split_off(0.5);
  EXPECT_NEAR(double(off.size()), double(whole) / 2, 4 * std::sqrt(double(whole) / 4));
  const auto own = part(lines, 2, DSE_SOURCE_ROLLOUT, 1, {1, 1});
  for (size_t i = 0; i < off.size(); ++i) EXPECT_TRUE(own.contains(off[i].prompt_text));
}

TEST_F(Splits, PartsThatAreNotThereAreRefused) {
  const auto lines = questions(3);
  const auto says = [&](int64_t number, uint32_t source, const std::vector<double>& split) -> std::string {
    try {
      part(lines, number, source, 1, split);
    } catch (const UserError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(says(0, DSE_SOURCE_ROLLOUT, {1, 1}),
            "data.split has 2 parts and a stage of prompts wants part 3 where data.part is 0: add shares, or set "
            "data.part");
  EXPECT_NE(says(3, DSE_SOURCE_ROLLOUT, {1, 1}).find("wants part 3"), std::string::npos);
  EXPECT_NE(says(1, DSE_SOURCE_ROLLOUT, {}).find("without data.split"), std::string::npos);
  EXPECT_NE(says(1, DSE_SOURCE_ROLLOUT, {0, 1}).find("the share 0"), std::string::npos);
  EXPECT_NE(says(2, DSE_SOURCE_ROLLOUT, {1, 1e-9}).find("part 2 of data.split is empty"), std::string::npos);
}

TEST_F(Examples, AnEpochIsAPermutationOfItsOwn) {
  std::vector<std::string> lines;
  for (int i = 0; i < 50; ++i) lines.push_back(fmt::format(R"({{"prompt": "question {}"}})", i));
  const auto set = load(lines, DSE_SOURCE_ROLLOUT);
  auto first = epoch_order(set, 1, 2, 0);
  EXPECT_EQ(first, epoch_order(set, 1, 2, 0));
  EXPECT_NE(first, epoch_order(set, 1, 2, 1));
  EXPECT_NE(first, epoch_order(set, 2, 2, 0));
  std::sort(first.begin(), first.end());
  std::vector<uint32_t> all(50);
  std::iota(all.begin(), all.end(), 0u);
  EXPECT_EQ(first, all);
}

TEST_F(Examples, PairsOfEqualAnswersAreNotCompared) {
  const std::string alike = R"({"prompt": "Hi", "chosen": "Yes", "rejected": "Yes"})";
  const auto set = load({alike, R"({"prompt": "Hi", "chosen": "Yes", "rejected": "No"})", alike}, DSE_SOURCE_PAIRS);
  ASSERT_EQ(set.size(), 1u);
  EXPECT_EQ(decode(set[0].rejected.tokens), " No" + eos);
  EXPECT_EQ(load({alike, alike}, DSE_SOURCE_RECORDS).size(), 2u);
  EXPECT_THROW(load({alike}, DSE_SOURCE_PAIRS), UserError);
}

TEST_F(Examples, RecordsLabelledFalseAreNotImitated) {
  const std::string good = R"({"prompt": "Hi", "completion": "Yes", "label": true})",
                    bad = R"({"prompt": "Hi", "completion": "No", "label": false})";
  const auto set = load({bad, good, bad}, DSE_SOURCE_RECORDS);
  ASSERT_EQ(set.size(), 1u);
  EXPECT_EQ(decode(set[0].answer.tokens), " Yes" + eos);
  EXPECT_EQ(load({bad, good}, DSE_SOURCE_ROLLOUT).size(), 2u);  // their prompts are asked
  EXPECT_THROW(load({bad}, DSE_SOURCE_RECORDS), UserError);
  const std::string turns =
      R"("messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "No"}])";
  EXPECT_EQ(load({good, "{" + turns + R"(, "label": false})"}, DSE_SOURCE_RECORDS).size(), 1u);
  EXPECT_EQ(load({R"({"text": "a", "label": false})", R"({"text": "b", "label": 0})"}, DSE_SOURCE_RECORDS).size(), 1u);
  // What may mean the same is refused beside an answer; what cannot is a field as others are.
  for (const char* label : {"0", "1", "\"false\"", "\"True\""}) try {
      load({R"({"prompt": "Hi", "completion": "No", "label": )" + std::string(label) + "}"}, DSE_SOURCE_RECORDS);
      ADD_FAILURE() << label;
    } catch (const UserError& e) {
      EXPECT_NE(std::string(e.what()).find("record 1: the field 'label' is"), std::string::npos) << e.what();
    }
  for (const char* label : {"3", "\"positive\"", "null", "[false]"})
    EXPECT_EQ(load({R"({"prompt": "Hi", "completion": "No", "label": )" + std::string(label) + "}"}, DSE_SOURCE_RECORDS)
                  .size(),
              1u);
}

TEST_F(Examples, NobodyIsAskedWithTheAnswer) {
  const std::string turns = R"([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "It is 25"}])";
  for (const std::string& record : {R"({"prompt": "Hi", "messages": )" + turns + "}", R"({"prompt": )" + turns + "}",
                                    R"({"chosen": "It is 25", "rejected": "No", "messages": )" + turns + "}"})
    EXPECT_EQ(load({record}, DSE_SOURCE_ROLLOUT)[0].prompt_text, "Human: Hi\nAssistant:") << record;
  EXPECT_EQ(targets(load({R"({"prompt": "Hi", "messages": )" + turns + "}"}, DSE_SOURCE_RECORDS)[0].answer),
            " It is 25" + eos);
  for (const uint32_t source : {DSE_SOURCE_ROLLOUT, DSE_SOURCE_RECORDS, DSE_SOURCE_PAIRS})
    EXPECT_THROW(load({R"({"chosen": "Yes", "rejected": "No", "messages": )" + turns + "}"}, source), UserError);
}

// Every item that the steps of a plan take, by step.
struct Plans : Examples {
  using Steps = std::vector<std::vector<uint32_t>>;
  ExampleSet numbered(int count, double weight = 1) {
    std::vector<std::string> lines;
    for (int i = 0; i < count; ++i) lines.push_back(fmt::format(R"({{"prompt": "question {}"}})", i));
    from.weight = weight;
    return load(lines, DSE_SOURCE_ROLLOUT);
  }
  Steps steps(const ExampleSet& set, int64_t at_once, const StepPlan::Length& length) {
    const StepPlan plan(set, 5, 6, at_once, length);
    ExampleStream stream(set, 5, 6);
    Steps all;
    for (int64_t s = 0; s < plan.steps(); ++s) {
      auto& step = all.emplace_back();
      const auto items = plan[s];
      for (int64_t i = 0; i < items.count; ++i) step.push_back(uint32_t(&stream[items.first + uint64_t(i)] - &set[0]));
    }
    return all;
  }
  static std::vector<size_t> sizes(const Steps& all) {
    std::vector<size_t> result;
    for (const auto& step : all) result.push_back(step.size());
    return result;
  }
};

TEST_F(Plans, EpochsArePasses) {
  const auto set = numbered(5);
  using Sizes = std::vector<size_t>;
  const auto all = steps(set, 2, {.epochs = 3});
  EXPECT_EQ(sizes(all), (Sizes{2, 2, 1, 2, 2, 1, 2, 2, 1}));
  for (size_t epoch = 0; epoch < 3; ++epoch) {  // each pass is the epoch's own order, whole
    std::vector<uint32_t> pass;
    for (size_t s = 3 * epoch; s < 3 * epoch + 3; ++s) pass.insert(pass.end(), all[s].begin(), all[s].end());
    EXPECT_EQ(pass, epoch_order(set, 5, 6, epoch));
  }
  EXPECT_EQ(sizes(steps(set, 5, {.epochs = 2})), (Sizes{5, 5}));
  EXPECT_EQ(sizes(steps(set, 32, {.epochs = 2})), (Sizes{5, 5}));  // a batch larger than the data
  EXPECT_EQ(sizes(steps(set, 1, {.epochs = 1})), (Sizes{1, 1, 1, 1, 1}));
  const auto longer = steps(set, 2, {.epochs = 4});  // a longer stage begins with the shorter one
  EXPECT_EQ(Steps(longer.begin(), longer.begin() + 9), all);
  EXPECT_THROW(steps(set, 2, {.epochs = int64_t(1) << 60}), UserError);
}

TEST_F(Plans, MaxStepsTakeEqualStepsAcrossEpochs) {
  const auto set = numbered(5);
  const auto all = steps(set, 2, {.max_steps = 6, .epochs = 1});
  std::vector<uint32_t> taken, expected;
  for (const auto& step : all) taken.insert(taken.end(), step.begin(), step.end());
  for (size_t epoch = 0; epoch < 3; ++epoch) {
    const auto order = epoch_order(set, 5, 6, epoch);
    expected.insert(expected.end(), order.begin(), order.end());
  }
  expected.resize(12);
  EXPECT_EQ(sizes(all), std::vector<size_t>(6, 2));
  EXPECT_EQ(taken, expected);
}

TEST_F(Plans, WeightsOfSourcesAreKeptInEveryPass) {
  const auto twice = steps(numbered(3, 2), 4, {.epochs = 1});
  EXPECT_EQ(sizes(twice), (std::vector<size_t>{4, 2}));
  std::map<uint32_t, int> times;
  for (const auto& step : twice)
    for (const auto item : step) ++times[item];
  EXPECT_EQ(times, (std::map<uint32_t, int>{{0, 2}, {1, 2}, {2, 2}}));
  // Half of the records, drawn anew: passes of several sizes, each whole.
  const auto half = numbered(9, 0.5);
  const auto all = steps(half, 2, {.epochs = 20});
  size_t at = 0;
  for (uint64_t epoch = 0; epoch < 20; ++epoch) {
    std::vector<uint32_t> pass;
    const auto order = epoch_order(half, 5, 6, epoch);
    while (pass.size() < order.size()) {
      ASSERT_LT(at, all.size());
      EXPECT_EQ(all[at].size(), std::min<size_t>(2, order.size() - pass.size()));
      pass.insert(pass.end(), all[at].begin(), all[at].end()), ++at;
    }
    EXPECT_EQ(pass, order);
  }
  EXPECT_EQ(at, all.size());
}

TEST(LearningRate, WarmsUpThenFalls) {
  OptimizerConfig o;
  o.learning_rate = 1, o.warmup_steps = 4, o.min_lr_ratio = 0.1, o.schedule = Schedule::linear;
  EXPECT_DOUBLE_EQ(learning_rate_at(o, 0, 14), 0.25);
  EXPECT_DOUBLE_EQ(learning_rate_at(o, 3, 14), 1);
  EXPECT_DOUBLE_EQ(learning_rate_at(o, 4, 14), 1);
  EXPECT_DOUBLE_EQ(learning_rate_at(o, 9, 14), 0.55);
  EXPECT_DOUBLE_EQ(learning_rate_at(o, 14, 14), 0.1);
  o.schedule = Schedule::cosine;
  EXPECT_NEAR(learning_rate_at(o, 9, 14), 0.55, 1e-12);
  o.schedule = Schedule::constant;
  EXPECT_DOUBLE_EQ(learning_rate_at(o, 13, 14), 1);
}

}  // namespace
}  // namespace dsengine
