// Plugins of rewards that are odd (tests/abi/odd_reward.cpp), and what the tests ask of them.
#pragma once
#include "plugin/fixtures.h"
#include "rl/scorer.h"

namespace dsengine {

inline const PluginRegistry& odd_plugins() {
  static const PluginRegistry registry({}, {{fixture("plain"), ""},
                                            {fixture("infinite"), ""},
                                            {fixture("always_infinite"), ""},
                                            {fixture("large"), ""},
                                            {fixture("own_keys"), ""},
                                            {fixture("never_returns"), ""}});
  return registry;
}

inline OptionValue option(const OptionVariant& value) { return {value, "run.toml:7: reward"}; }
inline RewardSource odd_reward(const char* name, OptionValues options = {}, double weight = 1) {
  return {"", name, "", weight, std::move(options)};
}
inline Scorer odd_scorer(const std::vector<RewardSource>& sources) {
  return {sources, std::vector<std::shared_ptr<const RewardModel>>(sources.size()), odd_plugins()};
}
// Answers of so many tokens, with a reply of one letter.
inline std::vector<ScoredAnswer> answers_of(const std::vector<int64_t>& token_counts) {
  std::vector<ScoredAnswer> answers;
  for (const auto count : token_counts) answers.push_back({"p", "r", "", {}, count});
  return answers;
}

}  // namespace dsengine
