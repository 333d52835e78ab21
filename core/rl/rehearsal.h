// What a stage will need, before it begins: one step of it gone through on the meta device, by the very code that will
// run it, with models that have shapes and no values. Every tensor that a step takes is charged to Ledger::meta() as it
// would be to the device's own book; what kernels take for themselves is asked of them.
//
//   const StagePlan plan = rehearse(run, stage, inputs, {registry, meta_kernels, stop}, text, data);
//   plan.peak();                               // bytes
//   plan.largest().of(MemoryTag::activations);
//
// The step is the one of the whole stage that reads most, and memory's peak also that of the one with the longest
// record; answers are as long as they may become. Not seen: what LibTorch's libraries take, the program, and a critic's
// own words. Seconds, where the kernels have rates (Kernels::set_rates), are those that reading and multiplying take at
// least.
#pragma once
#include <array>

#include "rl/stage_data.h"
#include "rl/stage_models.h"

namespace dsengine {

struct PhasePlan {
  std::string name;                                          // of the phase, or "evaluation"
  int64_t bytes = 0;                                         // at its peak
  std::array<int64_t, kChoices<MemoryTag>.size()> by_tag{};  // of these
  double seconds = 0;
  int64_t of(MemoryTag tag) const { return by_tag[size_t(tag)]; }
};

// Bytes, as Traffic has them.
struct Movement {
  double moved = 0, unpacked = 0;
  Movement& operator+=(const Movement& other) {
    moved += other.moved, unpacked += other.unpacked;
    return *this;
  }
  friend Movement operator*(double times, const Movement& m) { return {times * m.moved, times * m.unpacked}; }
};

struct StagePlan {
  std::string stage, algorithm;
  int64_t steps = 0;
  int64_t held = 0;                 // bytes between phases: the state
  int64_t offloaded = 0;            // beside all these, what lies in the host's memory
  bool host_apart = false;          // whether that is another memory than the device's
  Movement movement{};              // in a step
  std::vector<PhasePlan> phases{};  // those of a step, in their order; then the answers of an evaluation

  const PhasePlan& at(Phase phase) const { return phases[size_t(phase)]; }
  const PhasePlan& largest() const;
  // Of the device's memory; where it is the host's, what is offloaded comes on top.
  int64_t peak() const { return largest().bytes + (host_apart ? 0 : offloaded); }
  double seconds() const;  // of a step
};

// context: its kernels are on the meta device. inputs: folders that are there. Writes Ledger::meta() anew.
StagePlan rehearse(const RunConfig& run, const StageConfig& stage, const StageInputs& inputs,
                   const StageContext& context, const TextModel& text, const StageData& data);

}  // namespace dsengine
