// TensorBoard's event file of a stage: a copy of metrics.jsonl and eval.jsonl, which stay the truth.
//
//   TensorBoardLog board(stage.path() / "tensorboard", stage.metrics_file(), stage.eval_file());
//   board.append_training({{"step", 7}, {"wall_time", 1.7e9}, {"loss", 0.5}});      // train/loss
//   board.append_evaluation({{"step", 7}, {"wall_time", 1.7e9}, {"eval_loss", 1}}); // eval/loss
//
// Opening writes the file anew from the two others, so steps that a resume cut from them are gone, and so is the torn
// record that a kill may have left. A line is one record and one write(2). What is no number is left out.
#pragma once
#include <filesystem>
#include <string>

#include "base/json.h"

namespace dsengine {

class TensorBoardLog {
 public:
  // Replaces the event files in `folder`; an older one stays until the new one is whole.
  TensorBoardLog(std::filesystem::path folder, const std::filesystem::path& metrics_file,
                 const std::filesystem::path& eval_file);
  ~TensorBoardLog();
  TensorBoardLog(const TensorBoardLog&) = delete;
  TensorBoardLog& operator=(const TensorBoardLog&) = delete;

  void append_training(const Json& line);
  void append_evaluation(const Json& line);

 private:
  void append(const std::string& record);

  std::filesystem::path file_path_;
  int file_ = -1;
};

}  // namespace dsengine
