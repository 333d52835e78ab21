// One stage of a run as `dsengine bench` drives it: the models, the learner and the phases that StageRunner has
// (rl/stage.h), with rows that are made in memory, and without files. Roles are loaded from one folder, or the
// critic from another.
//
//   BenchStage stage(session, "models/tiny", config, at::kFloat);       // config.name, algorithm, mini_batch_size
//   Json line = stage.step([&] { return experience; });     // a step's metrics, as metrics.jsonl has them
//
// Where the folder has no tokenizer, one of a single token takes its place: ids go in and come out. Nothing ends an
// answer but its length.
#pragma once
#include <filesystem>
#include <functional>

#include "comm/local.h"
#include "rl/learner.h"
#include "rl/stage_models.h"

namespace dsengine {

class Session;

class BenchStage {
 public:
  // random: of the models' folders config.json alone is read, and weights are drawn. critic: its folder; "": the
  // others' too.
  BenchStage(const Session& session, const std::filesystem::path& model, StageConfig stage, at::ScalarType dtype,
             bool random = false, const std::filesystem::path& critic = {});

  // Rows, columns, advantages, updates. `rows` may enter phases.
  Json step(const std::function<Experience()>& rows);

  const StageConfig& config() const { return stage_; }
  const dse_needs& needs() const { return algorithm_.needs(); }
  Roles& roles() { return models_.roles(); }
  const TextModel& text() const { return text_; }
  Phases& phases() { return phases_; }
  uint64_t steps() const { return steps_; }  // done

 private:
  const RunConfig run_;
  const StageConfig stage_;
  const StageInputs inputs_;
  const StopSignal stop_;
  AlgorithmInstance algorithm_;
  const TextModel text_;
  StageModels models_;
  LocalCommunicator ranks_;
  Phases phases_;
  Learner learner_;
  uint64_t steps_ = 0;
};

// Of records whose prompt is a row's first token, and whose answer the others.
Experience records_of(const std::vector<std::vector<int32_t>>& rows);
// The mean of -log p of the answers' tokens.
double mean_loss(const Model& model, const Experience& records);
// The median of each phase's seconds in the lines of several steps, without "seconds_": {generate, score, …}.
Json median_phases(const std::vector<Json>& lines);
// What the step of a line held at most for each purpose, in MiB: {weights, activations, …}.
Json memory_by_tag(const Json& line);

}  // namespace dsengine
