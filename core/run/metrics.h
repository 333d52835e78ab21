// metrics.jsonl: one JSON object a line, there for good as soon as append returns.
//
//   MetricsLog metrics(stage.metrics_file());
//   metrics.append({{"stage", "ppo"}, {"step", 7}, {"loss", 0.5}});
//   checkpoint.metrics_offset = metrics.offset();  // on resume: metrics.truncate(checkpoint.metrics_offset)
//
// A line is one write(2), so a kill leaves at most one torn line, at the end; opening the file cuts it off.
// JSON has no NaN or infinity: they are written as null, with a warning.
#pragma once
#include <cstdint>
#include <filesystem>

#include "base/json.h"

namespace dsengine {

class MetricsLog {
 public:
  // Creates the file or goes on at its end.
  explicit MetricsLog(std::filesystem::path path);
  ~MetricsLog();
  MetricsLog(const MetricsLog&) = delete;
  MetricsLog& operator=(const MetricsLog&) = delete;

  void append(const Json& object);

  // Bytes written, all of them on the disk on return: a checkpoint that records it never points past the end.
  uint64_t offset() const;
  // Cuts the file back to what offset() gave. UserError if the file is shorter or has no line end there.
  void truncate(uint64_t offset);

 private:
  [[noreturn]] void fail(const char* action) const;
  void cut(uint64_t size);

  std::filesystem::path path_;
  int file_ = -1;
  uint64_t size_ = 0;
};

}  // namespace dsengine
