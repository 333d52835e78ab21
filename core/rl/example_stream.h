// Examples without end, and as rows of experience.
//
//   ExampleStream stream(data, run.seed, stage_key);
//   const Example& e = stream[step * count + i];                  // the same whenever asked
//   Experience rows = experience_of({&e}, DSE_SOURCE_PAIRS);      // a row each for the chosen and the rejected answer
#pragma once
#include "rl/examples.h"
#include "rl/experience.h"

namespace dsengine {

// Endless passes over an example set, each epoch in its own order; item n depends on the seed and n alone.
class ExampleStream {
 public:
  ExampleStream(const ExampleSet& set, uint64_t seed, uint64_t stage_key);
  const Example& operator[](uint64_t n);

 private:
  const ExampleSet& set_;
  uint64_t seed_, key_, epoch_ = 0, begin_ = 0;
  std::vector<uint32_t> order_;
};

// Records and pairs as rows: an answer each, or a pair's two, adjacent.
Experience experience_of(const std::vector<const Example*>& examples, uint32_t source);

}  // namespace dsengine
