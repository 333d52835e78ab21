// The parts of a report beside its charts, as HTML.
//
//   page += run_table(runs);
//   page += phase_bars({{"seed 1", 0, &stage}});
//   page += number_table(names, runs) + sample_cards(runs.front());
#pragma once
#include <string>
#include <vector>

#include "app/report_run.h"

namespace dsengine {

// One run's part in a section that several may share.
struct StageOfRun {
  std::string label;
  size_t colour;
  const ReportStage* stage;
};

// A coloured dot and the run's label.
std::string run_tag(const std::string& label, size_t colour);

// Folder, seed, how far each stage is, and seconds spent in steps.
std::string run_table(const std::vector<ReportRun>& runs, const std::vector<std::string>& labels);

// Seconds a step by phase: a bar for each run, as long as its step is beside the slowest's. "" without any.
std::string phase_bars(const std::vector<StageOfRun>& runs);

// The named metrics at the end: training's mean over the last steps, the first and the last held-out value.
std::string number_table(const std::vector<std::string>& names, const std::vector<StageOfRun>& runs);

// Answers of the first evaluation beside the last one's to the same prompts. "" without any.
std::string sample_cards(const StageOfRun& run);

}  // namespace dsengine
