// Choosing the next token from logits: temperature, top-k, top-p, with counted draws.
//
//   SamplingOptions options{.temperature = 1.0, .top_p = 0.9};
//   int32_t next = sample(logits_row, options, Philox(seed, Purpose::sample, step, row).uniform(position));
//
// The same logits and draw give the same token wherever the row stands in a batch.
#pragma once
#include <cstdint>
#include <span>

namespace dsengine {

struct SamplingOptions {
  double temperature = 1.0;         // 0: greedy, the lowest id among equals
  int64_t top_k = 0;                // 0: all
  double top_p = 1.0;               // smallest set of most probable tokens that reaches it
  double min_p = 0.0;               // drops tokens less probable than min_p times the best
  double repetition_penalty = 1.0;  // divides positive, multiplies negative logits of tokens seen (Keskar 2019)

  // At which a token's log-probability is told: before the filters; 1 when greedy.
  double told_temperature() const { return temperature > 0 ? temperature : 1.0; }
  bool filters() const { return top_k > 0 || top_p < 1 || min_p > 0 || repetition_penalty != 1; }
};

// `seen`: tokens of prompt and answer so far, for the repetition penalty. uniform in [0, 1).
int32_t sample(std::span<const float> logits, const SamplingOptions& options, double uniform,
               std::span<const int32_t> seen = {});

}  // namespace dsengine
