#include "rl/stage_data.h"

#include <algorithm>

#include "base/check.h"
#include "base/philox.h"
#include "rl/example_stream.h"

namespace dsengine {

namespace {

// room: for an answer to come; length_key: what to lower.
void check_set(const ExampleSet& set, const ModelGraph& graph, const std::filesystem::path& tokenizer,
               const char* length_key, int64_t room) {
  const int64_t vocabulary = graph.vocabulary, positions = graph.max_positions;
  for (size_t i = 0; i < set.size(); ++i) {
    const Example& e = set[i];
    for (const auto* ids : {&e.prompt, &e.answer.tokens, &e.rejected.tokens})
      for (const auto id : *ids)
        DSE_CHECK_USER(id >= 0 && id < vocabulary,
                       "the tokenizer of {} gives the id {}, the model's vocabulary is {}: they do not belong "
                       "together (record: {})",
                       tokenizer.string(), id, vocabulary, e.prompt_text.substr(0, 80));
    const int64_t answer = room > 0 ? room : int64_t(std::max(e.answer.tokens.size(), e.rejected.tokens.size()));
    DSE_CHECK_USER(
        positions == 0 || int64_t(e.prompt.size()) + answer <= positions,
        "a prompt of {} tokens and an answer of up to {} exceed the model's {} positions: lower {} (record: {})",
        e.prompt.size(), answer, positions, length_key, e.prompt_text.substr(0, 80));
  }
}

}  // namespace

StageData StageData::load(const StageConfig& stage, uint32_t source, const PluginRegistry& registry,
                          const TextModel& text, uint64_t seed) {
  StageData data;
  data.records =
      ExampleSet::load(stage.data.sources, registry, text, stage.data, source, Part::of(stage.data, source, seed));
  if (!stage.data.heldout.empty())
    data.heldout = ExampleSet::load(stage.data.heldout, registry, text, stage.data, source);
  else if (stage.data.heldout_fraction > 0)
    data.heldout = data.records.split_off(stage.data.heldout_fraction);
  if (stage.ptx.coefficient > 0) {
    DataConfig config = stage.data;
    config.max_length = stage.ptx.max_length, config.train_on = TrainOn::all;
    data.texts = ExampleSet::load(stage.ptx.sources, registry, text, config, DSE_SOURCE_RECORDS);
  }
  return data;
}

void StageData::check_fit(const StageConfig& stage, uint32_t source, const ModelGraph& graph, const TextModel& text,
                          const std::filesystem::path& tokenizer) const {
  for (const auto id : text.eos)
    DSE_CHECK_USER(id >= 0 && id < graph.vocabulary,
                   "the end-of-sequence id {} is outside the model's vocabulary of {}", id, graph.vocabulary);
  for (const auto id : stage.rollout.stop_token_ids)
    DSE_CHECK_USER(source != DSE_SOURCE_ROLLOUT || id < graph.vocabulary,
                   "rollout.stop_token_ids: {} is outside the model's vocabulary of {}", id, graph.vocabulary);
  const int64_t room = source == DSE_SOURCE_ROLLOUT ? stage.rollout.max_response_length : 0;
  const char* key = room > 0 ? "data.max_prompt_length or rollout.max_response_length" : "data.max_length";
  check_set(records, graph, tokenizer, key, room);
  check_set(heldout, graph, tokenizer, key, room);
  check_set(texts, graph, tokenizer, "ptx.max_length", 0);
}

void StageData::check_critic(const StageConfig& stage, const ModelGraph& critic) const {
  if (critic.max_positions == 0) return;
  for (const auto* set : {&records, &heldout})
    for (size_t i = 0; i < set->size(); ++i) {
      const Example& e = (*set)[i];
      const auto asked = int64_t(e.critic_prompt.empty() ? e.prompt.size() : e.critic_prompt.size());
      DSE_CHECK_USER(
          asked + stage.rollout.max_response_length <= critic.max_positions,
          "a prompt of {} tokens, as the critic is asked, and an answer of up to {} exceed its {} positions: "
          "lower data.max_prompt_length or rollout.max_response_length (record: {})",
          asked, stage.rollout.max_response_length, critic.max_positions, e.prompt_text.substr(0, 80));
    }
}

TextMixture mixture_of(const StageConfig& stage, const ExampleSet& texts, uint64_t seed, uint64_t stage_key) {
  const auto& ptx = stage.ptx;
  const auto stream = std::make_shared<ExampleStream>(texts, seed, stage_key ^ name_hash("ptx"));
  const int64_t count = ptx.batch_size > 0 ? ptx.batch_size : stage.mini_batch_size;
  return {ptx.coefficient, [stream, count](int64_t update) {
            std::vector<const Example*> some;
            for (int64_t i = 0; i < count; ++i) some.push_back(&(*stream)[uint64_t(update * count + i)]);
            return experience_of(some, DSE_SOURCE_RECORDS);
          }};
}

}  // namespace dsengine
