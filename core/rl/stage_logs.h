// What a stage writes of its steps: metrics.jsonl, eval.jsonl and TensorBoard's copy of both.
//
//   StageLogs logs(directory);
//   logs.begin(state.metrics_offset, state.eval_offset, run.tensorboard);   // cut back to the checkpoint
//   logs.append_metrics(line);  logs.append_evaluation(line);
#pragma once
#include <optional>

#include "run/metrics.h"
#include "run/run_directory.h"
#include "run/tensorboard.h"

namespace dsengine {

class StageLogs {
 public:
  // Of a directory that this rank does not write, nothing is.
  explicit StageLogs(const StageDirectory& directory) : directory_(directory) {
    if (directory.writes()) metrics_.emplace(directory.metrics_file()), evaluations_.emplace(directory.eval_file());
  }

  void begin(uint64_t metrics_offset, uint64_t eval_offset, bool tensorboard) {
    if (!metrics_) return;
    metrics_->truncate(metrics_offset);
    evaluations_->truncate(eval_offset);
    if (tensorboard) board_.emplace(directory_.tensorboard(), directory_.metrics_file(), directory_.eval_file());
  }
  void append_metrics(const Json& line) {
    if (metrics_) metrics_->append(line);
    if (board_) board_->append_training(line);
  }
  void append_evaluation(const Json& line) {
    if (evaluations_) evaluations_->append(line);
    if (board_) board_->append_evaluation(line);
  }
  uint64_t metrics_offset() const { return metrics_ ? metrics_->offset() : 0; }
  uint64_t eval_offset() const { return evaluations_ ? evaluations_->offset() : 0; }
  // The step of the last line of eval.jsonl; -1: there is none.
  int64_t last_evaluation() const {
    std::string lines = read_text(directory_.eval_file());
    if (lines.empty()) return -1;
    lines.pop_back();
    const std::string last = lines.substr(lines.rfind('\n') + 1);
    return parse_json(last, directory_.eval_file().string()).value("step", int64_t{-1});
  }

 private:
  const StageDirectory& directory_;
  std::optional<MetricsLog> metrics_, evaluations_;
  std::optional<TensorBoardLog> board_;
};

}  // namespace dsengine
