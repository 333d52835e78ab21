// What held-out records say of models: loss, a reward model's accuracy, mean rewards, answers side by side.
//
//   EvalOptions options{.model = "models/tiny", .data = "heldout.jsonl"};
//   const Json result = evaluate(engine, options, sampling);   // the keys: kEvalKeys of app/json_keys.h
//   result["loss"][0]["mean"];                                 // nats a token
#pragma once
#include <string>
#include <vector>

#include "base/json.h"
#include "engine/engine.h"

namespace dsengine {

struct EvalOptions {
  std::string model, other;          // language models; other: to compare with
  std::string base, reward_base;     // of those models, and of the reward model, that are adapters; "": theirs
  std::string reward_model, reward;  // a directory; a reward plugin ("": model, where a directory is given)
  std::string data, reader = "jsonl";
  std::vector<std::string> reward_options, data_options;  // key=value, of the plugins
  int64_t rows = 256;
  std::string dtype = "fp32";
};

// What the records and models given allow: the loss on their answers (model), the accuracy on pairs (reward_model),
// answers to their prompts with their mean reward (model with a reward, or with other). UserError where nothing can be
// measured.
Json evaluate(const dse::Engine& engine, const EvalOptions& options, const dse::Sampling& sampling);

}  // namespace dsengine
