// A stage's state between two steps: trained weights, optimizer moments, the algorithm's own state, and where
// the data and metrics stand. Randomness is counted, so the step is all there is to remember of it.
//
//   save_checkpoint(stage.checkpoints(), keep, state, roles);
//   if (auto found = newest_checkpoint(stage.checkpoints())) state = load_checkpoint(*found, roles);
//
// A checkpoint is a folder step-00000120 that appears as a whole: manifest.json and one safetensors file a
// trained role, holding what is trained of each unit's flat buffer, and its two moments. Restoring one gives the very
// bits.
#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "base/json.h"
#include "rl/role.h"

namespace dsengine {

struct StageState {
  int64_t step = 0;                              // steps done
  uint64_t metrics_offset = 0, eval_offset = 0;  // bytes of metrics.jsonl and eval.jsonl that belong to them
  std::string algorithm_state;
  Json environment;  // threads, instruction set, …: what bitwise equality rests on
};

void save_checkpoint(const std::filesystem::path& folder, int64_t keep, const StageState& state, Roles& roles);
std::optional<std::filesystem::path> newest_checkpoint(const std::filesystem::path& folder);
// Fills the roles' weights and moments. UserError where the checkpoint does not fit them.
StageState load_checkpoint(const std::filesystem::path& checkpoint, Roles& roles);

}  // namespace dsengine
