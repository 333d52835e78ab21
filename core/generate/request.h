// One thing asked of a scheduler: a prompt, how it is answered, and how often.
#pragma once
#include <cstdint>
#include <vector>

#include "base/finish.h"
#include "generate/sampler.h"
#include "model/model.h"
#include "text/stops.h"

namespace dsengine {

struct GenerationRequest {
  std::vector<int32_t> prompt;
  int64_t max_new_tokens = 128;
  int64_t samples = 1;
  SamplingOptions sampling{};
  std::vector<int32_t> eos{};    // any of them ends an answer and belongs to it
  const Stops* stops = nullptr;  // what else ends one; borrowed, null: nothing
  // Name the draws: sample i of the request draws with (seed, step, row + i, position). Requests that are to draw apart
  // have rows apart, by `samples` at least.
  uint64_t seed = 0, step = 0, row = 0;
};

struct Generation {
  std::vector<int32_t> tokens;  // the ending eos included
  std::vector<float> logp;      // of each token, see sampler.h
  Finish finish = Finish::length;
};

// UserError where a model cannot take the prompt with so many new tokens: positions, ids.
void check_request(const Model& model, std::span<const int32_t> prompt, int64_t max_new_tokens);

}  // namespace dsengine
