// Examples without end, what of them a step takes, and as rows of experience.
//
//   ExampleStream stream(data, run.seed, stage_key);
//   const StepPlan plan(data, run.seed, stage_key, 32, {.epochs = 2});
//   const Example& e = stream[plan[step].first + i];              // i < plan[step].count; the same whenever asked
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

// How long a stage is, and which items of its stream each step takes.
class StepPlan {
 public:
  struct Items {
    uint64_t first;
    int64_t count;
  };
  struct Length {
    // 0: from epochs. Else so many steps of equally many items, whichever epoch they lie in.
    int64_t max_steps = 0;
    // Passes. In each a record comes as often as its source's weight says; a pass's last step takes what is left of it.
    int64_t epochs = 1;
  };
  StepPlan(const ExampleSet& set, uint64_t seed, uint64_t stage_key, int64_t items_per_step, const Length& length);

  int64_t steps() const { return steps_; }
  Items operator[](int64_t step) const;  // below steps()

 private:
  struct Epoch {
    int64_t first_step, first_item, items;
  };
  int64_t items_per_step_, steps_;
  std::vector<Epoch> epochs_;  // one where all are of its size; none with max_steps
};

// Records and pairs as rows: an answer each, or a pair's two, adjacent.
Experience experience_of(const std::vector<const Example*>& examples, uint32_t source);

}  // namespace dsengine
