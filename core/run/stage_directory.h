// The folder of a stage of a run: what it began with, and what it left.
//
//   StageDirectory stage = run.open_stage(config, config.stages[0]);
//   stage.check_inputs(inputs);
//   if (!stage.summary()) { train(...); stage.finish({{"loss", loss}}); }
//
//   settings.txt, inputs.json, metrics.jsonl, eval.jsonl, tensorboard/, checkpoints/, model/,
//   done.json (once it has ended)
//
// inputs.json and done.json carry their own SHA-256, and the hashes of what the stage began with and of what it left:
// what has changed since is named, and ends the run.
#pragma once
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "base/json.h"

namespace dsengine {

// What becomes of a file that is another than a stage remembers.
enum class Changes { refused, accepted };

class StageDirectory {
 public:
  // writes: false on ranks other than 0: what follows then compares, and changes nothing.
  StageDirectory(std::filesystem::path path, std::string fingerprint, Changes changes, bool writes = true);

  const std::filesystem::path& path() const { return path_; }
  bool writes() const { return writes_; }
  std::filesystem::path metrics_file() const { return path_ / "metrics.jsonl"; }
  std::filesystem::path eval_file() const { return path_ / "eval.jsonl"; }
  std::filesystem::path tensorboard() const { return path_ / "tensorboard"; }
  std::filesystem::path checkpoints() const { return path_ / "checkpoints"; }
  std::filesystem::path model() const { return path_ / "model"; }
  // SHA-256 of the settings that decide the stage's results, 64 hex digits.
  const std::string& fingerprint() const { return fingerprint_; }

  // What finish() was given, if the stage has ended.
  std::optional<Json> summary() const;
  // The stage has ended, and its outputs are in place: the whole of done.json appears at once.
  void finish(const Json& summary) const;
  // Takes done.json away: the stage goes on from its last checkpoint.
  void reopen() const;
  // Compares the outputs of a stage that has ended with their hashes in done.json. An output folder that was deleted as
  // a whole is no change.
  void check_outputs() const;
  // Those hashes: name of an output folder -> its files -> SHA-256.
  Json outputs() const;
  // Remembers what the stage begins with, name -> {"sha256", "from"}, at its first start. Where it has results,
  // compares those of `inputs`; an object under "files" (path -> SHA-256) tells which file of an input is another.
  void check_inputs(const Json& inputs) const;
  // Something is not what the stage's results rest on: UserError, or a warning where changes are accepted.
  void changed(const std::string& what) const;
  // UserError where the folder was removed, or another put in its place, since this object was made.
  void check_present() const;

 private:
  struct Handle {
    explicit Handle(int opened) : descriptor(opened) {}
    ~Handle();
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    const int descriptor;
  };

  std::optional<Json> remembered_inputs() const;

  std::filesystem::path path_;
  std::string fingerprint_;
  Changes changes_;
  bool writes_;
  std::shared_ptr<const Handle> handle_;  // of the folder, open
};

// The first output of a stage that has ended which is another than its done.json says, as a line.
std::optional<std::string> changed_output(const std::filesystem::path& stage);

// Whether the stage ended or has a checkpoint; one that was only opened may begin again under any settings.
bool has_results(const std::filesystem::path& stage);

}  // namespace dsengine
