#include "rl/answer_ends.h"

#include <fmt/ranges.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <set>

#include "text/stops.h"

namespace dsengine {

namespace {

// '<|im_end|>' (258)
template <class Ids>
std::string shown(const Ids& ids, const TextModel& text) {
  std::vector<std::string> names;
  for (const TokenId id : ids) names.push_back(fmt::format("'{}' ({})", text.tokenizer.token_of(id), id));
  return names.empty() ? "none" : fmt::format("{}", fmt::join(names, ", "));
}

bool stops_at(const TextModel& text, TokenId id) { return std::ranges::count(text.eos, id) > 0; }

std::vector<TokenId> with(std::vector<TokenId> ends, const std::set<TokenId>& more) {
  ends.insert(ends.end(), more.begin(), more.end());
  return ends;
}

}  // namespace

std::vector<TokenId> taught_ends(const std::string& stage, const ExampleSet& data, const TextModel& text) {
  std::set<TokenId> ends;
  bool any = false;
  for (size_t i = 0; i < data.size(); ++i) {
    if (data[i].is_text && !text.eos.empty()) continue;  // ends as the model does
    any = true;
    const auto& [tokens, mask] = data[i].answer;
    for (size_t t = 0; t < tokens.size(); ++t)
      if (mask[t] && (t + 1 == tokens.size() || !mask[t + 1]) && text.is_end(tokens[t])) ends.insert(tokens[t]);
  }
  if (!any) return {};
  if (std::ranges::any_of(ends, [&](TokenId id) { return stops_at(text, id); })) return {};
  if (ends.empty()) {
    spdlog::warn(
        "ends stage={} learned=none model={} note=\"{}, so that the model will not learn to stop: {}\"", stage,
        shown(text.eos, text),
        text.eos.empty() ? "neither the chat template nor the model has an end token"
                         : "the answers that are learned have no end token",
        text.eos.empty()
            ? "set eos_token_id in generation_config.json, or eos_token in tokenizer_config.json"
            : "where the chat template marks answers, let {% generation %} hold their end token; where records "
              "are cut, raise data.max_length");
    return {};
  }
  spdlog::warn(
      "ends stage={} learned={} model={} note=\"answers are learned with an end at which the model does not "
      "stop: the saved generation_config.json gets it as an eos_token_id beside the model's; where the "
      "model's end is meant, let the chat template write that one\"",
      stage, shown(ends, text), shown(text.eos, text));
  return with(text.eos, ends);
}

std::vector<TokenId> rollout_ends(const std::string& stage, const RolloutConfig& rollout, const TextModel& text) {
  const Stops stops(text.tokenizer, rollout.stop, rollout.stop_token_ids);
  const auto end = text.turn_end();
  if (end && stops_at(text, *end)) return {};
  if (end && stops.ids().contains(*end)) return with(text.eos, {*end});
  if (end)
    spdlog::warn(
        "ends stage={} template={} model={} note=\"rollouts do not stop where the chat template ends an "
        "answer: set rollout.stop_token_ids = [{}], or eos_token_id in the model's generation_config.json\"",
        stage, shown(std::vector{*end}, text), shown(text.eos, text), *end);
  else if (text.eos.empty() && stops.empty())
    spdlog::warn(
        "ends stage={} template=none model=none note=\"the model has no end token, so that every answer runs to "
        "rollout.max_response_length: set rollout.stop or rollout.stop_token_ids, or eos_token_id in the "
        "model's generation_config.json\"",
        stage);
  return {};
}

}  // namespace dsengine
