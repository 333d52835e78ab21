// A stage's state between two steps: trained weights, optimizer moments, the algorithm's own state, and where
// the data and metrics stand. Randomness is counted, so the step is all there is to remember of it.
//
//   save_checkpoint(stage, keep, state, roles);
//   if (auto found = newest_checkpoint(stage)) load_checkpoint(*found, roles), state = found->state;
//
// A checkpoint is a folder step-00000120 that appears as a whole: manifest.json and one safetensors file a
// trained role, holding what is trained, its two moments and its average, each parameter under its place in the model's
// own files (param/placement.h), so that it does not count how this build lays them out. The manifest holds the SHA-256
// of every file, of the metrics so far and of itself. Restoring one gives the very bits.
#pragma once
#include <filesystem>
#include <optional>
#include <string>

#include "base/json.h"
#include "comm/local.h"
#include "rl/role.h"
#include "run/run_directory.h"

namespace dsengine {

struct StageState {
  int64_t step = 0;                              // steps done
  int64_t max_steps = 0, epochs = 1;             // how long the stage was to be
  uint64_t metrics_offset = 0, eval_offset = 0;  // bytes of metrics.jsonl and eval.jsonl that belong to them
  std::string algorithm_state;
  Json environment;  // threads, instruction set, …: what bitwise equality rests on
};

struct FoundCheckpoint {
  std::filesystem::path path;
  StageState state;
  Json manifest;
};

// Keeps the newest `keep`. Of several ranks the one that writes the directory does so; where ranks own parts of moments
// (AdamW::cut) it is a collective.
void save_checkpoint(const StageDirectory& stage, int64_t keep, const StageState& state, const Roles& roles,
                     Communicator& ranks = alone());
// The newest whose files are what its manifest says. A damaged one is told, and put aside as damaged-step-…; UserError
// where every one is damaged, or where one is of another stage, other settings or another version. Metrics that are
// others than the manifest's are told as StageDirectory::changed.
std::optional<FoundCheckpoint> newest_checkpoint(const StageDirectory& stage);
// That of a step, as another rank has chosen it; nothing is renamed. UserError: it cannot be read, or is damaged.
FoundCheckpoint checkpoint_of(const StageDirectory& stage, int64_t step);
// Fills the roles' weights and moments. UserError where the checkpoint does not fit the roles.
void load_checkpoint(const FoundCheckpoint& checkpoint, const Roles& roles);
// Removes all but the newest `keep`.
void prune_checkpoints(const StageDirectory& stage, int64_t keep);

}  // namespace dsengine
