// What generation holds while it goes on: keys and values, and the narrower copies of weights that
// RolloutConfig::weights asks for. Copies are made as Phase::generate begins, from the weights as they are then; at its
// end all is given back, but for keys and values that RolloutConfig::keep_cache keeps for the next.
//
//   GenerationMemory memory(phases, scheduler, actor, config);
//   { const auto phase = phases.enter(Phase::generate); rollout.generate(prompts, step); }
//   memory.take_pack_seconds();                         // since the last call
//
// Borrows its arguments, and stays as long as the phases tell it of theirs. One thread.
#pragma once
#include <utility>

#include "generate/scheduler.h"
#include "memory/phases.h"
#include "run/config.h"

namespace dsengine {

// UserError where RolloutConfig::weights asks for narrower copies of weights that are narrow.
void check_weight_format(WeightFormat format, at::ScalarType dtype);

// How a model's linears are read as it generates.
Packing packing_of(WeightFormat format);

class GenerationMemory {
 public:
  GenerationMemory(Phases& phases, Scheduler& scheduler, Model& model, const RolloutConfig& config);
  GenerationMemory(const GenerationMemory&) = delete;
  GenerationMemory& operator=(const GenerationMemory&) = delete;

  double take_pack_seconds() { return std::exchange(pack_seconds_, 0); }

 private:
  double pack_seconds_ = 0;
};

}  // namespace dsengine
