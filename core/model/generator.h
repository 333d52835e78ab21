// Generation with continuous batching: finished rows leave their slot at once and waiting prompts enter.
//
//   Generator generator(model, {.slots = 64});
//   auto answers = generator.run(requests, options, seed, step);      // in the order of the requests
//
// Reads the very weights that training writes. What a request answers depends on the weights, its prompt and
// its (seed, step, row) alone, not on the slots or its neighbours.
#pragma once
#include <functional>
#include <span>
#include <vector>

#include "base/finish.h"
#include "model/model.h"
#include "model/sampler.h"

namespace dsengine {

struct GenerationRequest {
  std::vector<int32_t> prompt;
  int64_t max_new_tokens = 128;
  uint64_t row = 0;  // names the draws
};

struct GenerationOptions {
  SamplingOptions sampling;
  std::vector<int32_t> eos;  // any of them ends an answer and belongs to it
  // Called after each token of a request (index into the requests); true ends the answer as `stop`.
  std::function<bool(size_t request, const std::vector<int32_t>& tokens)> on_token;
  // Called after each step with the number of finished requests; may throw to stop.
  std::function<void(size_t finished)> on_step;
};

struct Generation {
  std::vector<int32_t> tokens;  // the ending eos included
  std::vector<float> logp;      // of each token, see sampler.h
  Finish finish = Finish::length;
};

// UserError where a model cannot take the prompt with so many new tokens: positions, ids.
void check_request(const Model& model, std::span<const int32_t> prompt, int64_t max_new_tokens);

class Generator {
 public:
  struct Limits {
    int64_t slots = 64;             // sequences at once
    int64_t prefill_tokens = 8192;  // prompt tokens entered in one forward
  };
  Generator(const Model& model, Limits limits);

  std::vector<Generation> run(const std::vector<GenerationRequest>& requests, const GenerationOptions& options,
                              uint64_t seed, uint64_t step) const;

 private:
  const Model& model_;
  Limits limits_;
};

}  // namespace dsengine
