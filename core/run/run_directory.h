// The folder of a run, and the lock that keeps a second process out of it.
//
//   RunDirectory run(config);                         // rank 0 only; UserError if it is another run's folder
//   StageDirectory stage = run.open_stage(config, config.stages[0]);
//   if (!stage.summary()) { train(...); stage.finish({{"loss", loss}}); }
//
//   <output_dir>/config.toml, log.txt, lock
//   <output_dir>/<stage>/ (run/stage_directory.h)
//
// A stage that has a checkpoint or has ended under other settings is refused, naming the keys that differ;
// keys that change no result (log_every, checkpoint_every, ...) may differ, threads may with a warning, and the length
// (epochs, max_steps) is the stage's to judge.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

#include "run/config.h"
#include "run/stage_directory.h"

namespace dsengine {

class RunDirectory {
 public:
  // Creates config.output_dir, locks it, compares the settings of every stage there and writes config.toml.
  // writes: false on ranks other than 0, which read what rank 0 has made of it.
  explicit RunDirectory(const RunConfig& config, Changes changes = Changes::refused, bool writes = true);
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
  Changes changes_;
  bool writes_;
  int lock_ = -1;
};

// The keys in which two texts of stage_settings() differ, each "key: old value -> new value", without the
// keys that may change freely; `threads`, `epochs` and `max_steps` too are left out.
std::vector<std::string> changed_settings(const std::string& before, const std::string& now);
// SHA-256 of the settings that changed_settings() compares.
std::string settings_fingerprint(const std::string& settings);

}  // namespace dsengine
