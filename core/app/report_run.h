// What a report shows of one run, read from the run's folder.
//
//   const ReportRun run = read_run("runs/rlhf_tiny");
//   for (const ReportStage& stage : run.stages)
//     if (const Curve* loss = find_curve(stage.training, "loss")) draw(*loss);
//
// The run may be in progress: stages that have not begun are absent, and a last line without its end is not read.
// UserError, naming file and line, where the folder is no run's or a line is damaged.
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace dsengine {

struct CurvePoint {
  int64_t step;
  double value;  // NaN where the file has null
};

struct Curve {
  std::string name;
  std::vector<CurvePoint> points;
};

struct AnswerSample {
  std::string prompt, reply;
  double reward;  // NaN: none
  bool greedy;
};

struct SampleSet {
  int64_t step = -1;  // -1: there is none
  std::vector<AnswerSample> samples;
};

struct ReportStage {
  std::string name, algorithm;  // algorithm "": config.toml no longer has the stage
  bool finished = false;
  int64_t steps = 0;              // the last that metrics.jsonl has
  std::vector<Curve> training;    // by first appearance, as are those of evaluation
  std::vector<Curve> evaluation;  // names without "eval_"
  SampleSet first, last;          // of the first and the last evaluation that has samples
};

struct ReportRun {
  std::filesystem::path folder;
  std::string label;  // the folder's name
  std::string seed;   // "": not known
  std::string config;
  std::vector<ReportStage> stages;  // in config.toml's order, then others by name
};

ReportRun read_run(const std::filesystem::path& folder);

// Null where there is none of that name.
const Curve* find_curve(const std::vector<Curve>& curves, std::string_view name);

}  // namespace dsengine
