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
#include "model/hf/save.h"
#include "rl/forward.h"

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
    return {sources, load_reward_models(sources, models, built_plugins(), built_kernels(), text), built_plugins()};
  }
  Experience collect(Scorer& scores, int64_t step = 0) {
    means = {};
    Collector collector(config, 2, data, 9, 4);
    const Rollout rollout(scheduler, text, config, 11);
    return collector.collect(step, {uint64_t(step * config.batch_size), config.batch_size}, rollout, &scores, phases,
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
  const Model actor = load_model(directory, built_plugins(), built_kernels(), {.random_init = true, .seed = 3});
  Scheduler scheduler{actor, {}};
  ExampleSet data;
  RolloutConfig config;
  Phases phases;
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
  save_model(model, same, directory), save_model(model, other, directory);
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
  save_model(swapped, folder / "weights", {});
  fs::copy(folder / "weights/model.safetensors", other / "model.safetensors");

  const RewardSource source{"", "model", "", 1, {{"normalize", {false, ""}}}};
  auto by_ids = scorer({source}, {same}), by_text = scorer({source}, {other});
  std::vector<const Example*> prompts;
  for (size_t i = 0; i < 6; ++i) prompts.push_back(&data[i]);
  const Rollout rollout(scheduler, text, config, 11);
  const auto answers = rollout.to_score(rollout.generate(prompts, 0));
  const auto ids = by_ids.score(answers), texts = by_text.score(answers);
  int64_t differ = 0;
  for (size_t i = 0; i < answers.size(); ++i) {
    EXPECT_FLOAT_EQ(ids[i].total, float(last_values(model, {answers[i].tokens})[0]));
    auto encoded = text.prompt_tokens(answers[i].turns);
    const auto reply = text.tokenizer.encode(" " + answers[i].reply, false);
    encoded.insert(encoded.end(), reply.begin(), reply.end());
    if (answers[i].finish == Finish::eos) encoded.push_back(text.eos[0]);
    EXPECT_NEAR(texts[i].total, last_values(model, {encoded})[0], 1e-5);
    differ += std::abs(texts[i].total - texts[0].total) > 1e-3;
  }
  EXPECT_GT(differ, 0);
}

// One whose chat template is another than the actor's reads the conversation in its own, whatever its vocabulary.
TEST_F(Collecting, ARewardModelWithAChatTemplateOfItsOwnIsAskedInIt) {
  const Model model = actor.clone(ModelKind::value);
  at::NoGradGuard no_grad;
  at::manual_seed(1);
  for (const auto& t : model.tensors())
    if (t.spec->tensor == "score.weight") at::Tensor(t.tensor).normal_();
  const fs::path own = folder / "own";
  fs::create_directories(own);
  save_model(model, own, directory);
  write_text(own / "chat_template.jinja",
             "{% for m in messages %}{{ '[' + m.role + ']' + m.content + ';' }}{% endfor %}"
             "{% if add_generation_prompt %}[assistant]{% endif %}");
  auto scores = scorer({{"", "model", "", 1, {{"normalize", {false, ""}}}}}, {own});
  std::vector<const Example*> prompts{&data[0], &data[1], &data[2]};
  const auto answers =
      Rollout(scheduler, text, config, 11).to_score(Rollout(scheduler, text, config, 11).generate(prompts, 0));
  const auto made = scores.score(answers);
  for (size_t i = 0; i < answers.size(); ++i) {
    const bool ended = answers[i].finish != Finish::length;
    auto ids = text.tokenizer.encode("[user]" + answers[i].turns[0].content + ";[assistant]", false);
    const auto reply = text.tokenizer.encode(answers[i].reply + ";", false);
    ids.insert(ids.end(), reply.begin(), reply.end());
    if (ended) ids.push_back(text.eos[0]);
    EXPECT_NEAR(made[i].total, last_values(model, {ids})[0], 1e-5);
    EXPECT_GT(std::abs(made[i].total - last_values(model, {answers[i].tokens})[0]), 1e-4);
  }
}

// A critic with a chat template of its own is asked in it, and values the actor's own tokens.
TEST_F(Collecting, ACriticIsAskedInItsOwnWords) {
  const Model critic = actor.clone(ModelKind::value);
  at::NoGradGuard no_grad;
  at::manual_seed(1);
  for (const auto& t : critic.tensors())
    if (t.spec->tensor == "score.weight") at::Tensor(t.tensor).normal_();
  write_text(folder / "tokenizer_config.json", "{}");
  write_text(folder / "chat_template.jinja", "<{{ messages[0].content }}>{% if add_generation_prompt %}!{% endif %}");
  data.ask_critic({text.tokenizer, text.eos, ChatFormat::of(folder)}, "the critic");
  auto scores = scorer({regex_reward("", "e")});
  const Experience e = collect(scores);
  const Selection actors = select(e, Device::host()), critics = select(e, Device::host(), true);
  const at::Tensor values = forward(critic, critics, 1, false, false).value;
  EXPECT_TRUE(at::equal(actors.targets, critics.targets));  // the answers' own tokens
  EXPECT_FALSE(at::equal(actors.batch.tokens, critics.batch.tokens));
  for (int64_t r = 0; r < e.row_count(); ++r) {
    const auto& row = e.rows[size_t(r)];
    const std::vector<TokenId> asked(row.tokens.begin(), row.tokens.begin() + row.answer_begin);
    std::string question = text.tokenizer.decode(asked, true);
    question = question.substr(question.find("Question"), question.find('?') + 1 - question.find("Question"));
    auto ids = text.tokenizer.encode("<" + question + ">!", false);
    const auto begin = int64_t(ids.size());
    ids.insert(ids.end(), row.tokens.begin() + row.answer_begin, row.tokens.end());
    const at::Tensor all = critic.values(critic.hidden(pack(Device::host(), {ids})), at::arange(int64_t(ids.size())));
    const int64_t size = row.answer_size();
    EXPECT_TRUE(at::allclose(values.narrow(0, e.offsets[size_t(r)], size), all.narrow(0, begin - 1, size), 0, 1e-5));
  }
}

TEST_F(Collecting, RolloutsStopAtStringsAndTokens) {
  std::vector<const Example*> prompts;
  for (size_t i = 0; i < 12; ++i) prompts.push_back(&data[i]);
  config.max_response_length = 24, config.samples_per_prompt = 1;
  const auto plain = Rollout(scheduler, text, config, 11).generate(prompts, 0);
  const std::string e = "e";
  const auto without = [&](TokenId id) { return text.tokenizer.decode({{id}}, true).find(e) == std::string::npos; };
  config.stop = {e}, config.stop_token_ids = {*std::ranges::find_if(plain[0].answer.tokens, without)};
  const Rollout rollout(scheduler, text, config, 11);
  const auto stopped = rollout.generate(prompts, 0);
  const auto scored = rollout.to_score(stopped);
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
  auto scores = scorer({regex_reward("", "e")});
  config.batch_size = 12, config.samples_per_prompt = 2;
  collect(scores);
  EXPECT_GT(means.mean("eos_fraction"), 0.3);  // ended by themselves
}

// The settings reach the sampler: the rollout's answers are the generator's under them.
TEST_F(Collecting, RolloutsSampleAsTheyAreTold) {
  std::vector<const Example*> prompts{&data[0], &data[1], &data[2], &data[3]};
  config.samples_per_prompt = 1, config.max_response_length = 12;
  const auto answers_of = [&] {
    std::vector<std::vector<TokenId>> all;
    for (const auto& a : Rollout(scheduler, text, config, 11).generate(prompts, 0)) all.push_back(a.answer.tokens);
    return all;
  };
  const auto by_generator = [&](const SamplingOptions& sampling) {
    std::vector<GenerationRequest> requests;
    for (const auto* p : prompts)
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
  for (const auto& a : Rollout(scheduler, text, config, 11).generate_greedy(prompts)) greedy.push_back(a.answer.tokens);
  EXPECT_EQ(greedy, by_generator({.temperature = 0, .repetition_penalty = 3}));
}

}  // namespace
}  // namespace dsengine
