// The engine's own metrics: one row each, from which docs/metrics.md is printed and `dsengine report` chooses.
//
//   const MetricRow* row = find_metric("response_length");   // row->unit == "tokens"; null: not the engine's
//   if (!row || row->main) draw(curve);                      // an algorithm's own metric is always drawn
//   std::cout << metric_reference_markdown();
//
// What an algorithm plugin reports is not here: the engine knows no plugin by name.
#pragma once
#include <span>
#include <string>
#include <string_view>

namespace dsengine {

enum class MetricFile { training, evaluation, both };  // metrics.jsonl, eval.jsonl

struct MetricRow {
  std::string_view name;  // as metrics.jsonl has it; eval.jsonl puts "eval_" before it
  MetricFile file;
  std::string_view unit;  // "": none
  std::string_view meaning;
  bool main = false;  // says how the training goes, not what it costs
};

std::span<const MetricRow> metric_rows();
// Null where the engine has no metric of that name.
const MetricRow* find_metric(std::string_view name);

// The phases that a step's seconds are split into: "generate" of "seconds_generate", or "" for another name.
std::string_view phase_of_metric(std::string_view name);

// docs/metrics.md.
std::string metric_reference_markdown();

}  // namespace dsengine
