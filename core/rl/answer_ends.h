// Where answers end: what training teaches, held against the tokens at which the model stops. What does not fit is said
// once a stage, with its remedy.
//
//   std::vector<TokenId> ends = taught_ends("sft", data, text);      // for SaveOptions::ends
#pragma once
#include <string>
#include <vector>

#include "rl/examples.h"
#include "run/config.h"

namespace dsengine {

// The end tokens that a model trained on these answers is to be saved with: its own and those it learns, where none of
// its own is among the learned ones. Empty: it stops where it learns to end.
std::vector<TokenId> taught_ends(const std::string& stage, const ExampleSet& data, const TextModel& text);

// The same of a model that learns from its own answers, which end where the rollout stops.
std::vector<TokenId> rollout_ends(const std::string& stage, const RolloutConfig& rollout, const TextModel& text);

}  // namespace dsengine
