// The folder of a run, and the lock that keeps a second process out of it.
//
//   RunDirectory run(config);                         // rank 0 only; UserError if it is another run's folder
//   StageDirectory stage = run.open_stage(config, config.stages[0]);
//   if (!stage.summary()) { train(...); stage.finish({{"loss", loss}}); }
//
//   <output_dir>/config.toml, log.txt, lock
//   <output_dir>/<stage>/settings.txt, inputs.json, metrics.jsonl, eval.jsonl, tensorboard/, checkpoints/, model/,
//   done.json (once it has ended)
//
// A stage that has a checkpoint or has ended under other settings is refused, naming the keys that differ;
// keys that change no result (log_every, checkpoint_every, ...) may differ, and threads may with a warning.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "base/json.h"
#include "run/config.h"

namespace dsengine {

class StageDirectory {
 public:
  StageDirectory(std::filesystem::path path, std::string fingerprint)
      : path_(std::move(path)), fingerprint_(std::move(fingerprint)) {}

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path metrics_file() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path eval_file() const { return path_ / "eval.jsonl"; }
  std::filesystem::path tensorboard() const { return path_ / "tensorboard"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path model() const { return path_ / "model"; }
  // SHA-256 of the settings that decide the stage's results, 64 hex digits.
  const std::string& fingerprint() const { return fingerprint_; }

  // What finish() was given, if the stage has ended.
  std::optional<Json> summary() const;
  // Remembers what the stage's weights come from, at its first start; UserError where a stage that has results began
  // from something else.
  void check_lineage(const Json& lineage) const;
  // The stage has ended, and its outputs are in place: the whole of done.json appears at once.
  void finish(const Json& summary) const;

 private:
  std::filesystem::path path_;
  std::string fingerprint_;
};

class RunDirectory {
 public:
  // Creates config.output_dir, locks it, compares the settings of every stage there and writes config.toml.
  explicit RunDirectory(const RunConfig& config);
  ~RunDirectory();
  RunDirectory(const RunDirectory&) = delete;
  RunDirectory& operator=(const RunDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  std::filesystem::path log_file() const { return path_ / "log.txt"; }
  std::filesystem::path config_file() const { return path_ / "config.toml"; }

  // Creates the stage's folder, or opens it where it was left.
  StageDirectory open_stage(const RunConfig& config, const StageConfig& stage) const;

 private:
  void lock();

  std::filesystem::path path_;
  int lock_ = -1;
};

// The keys in which two texts of stage_settings() differ, each "key: old value -> new value", without the
// keys that may change freely; `threads` too is left out.
std::vector<std::string> changed_settings(const std::string& before, const std::string& now);
// SHA-256 of the settings that changed_settings() compares.
std::string settings_fingerprint(const std::string& settings);

}  // namespace dsengine
