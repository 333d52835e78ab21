// The folder of a run: one process at a time, one set of settings a stage.
#include "run/run_directory.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/check.h"
#include "run/config_print.h"
#include "run/config_reader.h"
#include "run/scratch_folder.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class RunDirectoryTest : public testing::Test {
 protected:
  RunConfig config(std::vector<std::string> sets = {}) {
    write_text(folder_.path / "run.toml",
               "[[stage]]\nname = \"sft\"\nalgorithm = \"sft\"\n[[stage]]\nname = \"ppo\"\nalgorithm = \"ppo\"\n");
    sets.push_back("output_dir=" + out_.string());
    return load_config(folder_.path / "run.toml", sets);
  }

  std::string error(const RunConfig& config) {
    try {
      RunDirectory run(config);
    } catch (const UserError& problem) {
      return problem.what();
    }
    return "no error";
  }

  // Leaves a checkpoint in the first stage.
  void begin(const RunConfig& config) {
    RunDirectory run(config);
    fs::create_directories(run.open_stage(config, config.stages[0]).checkpoints() / "step_5");
  }

  ScratchFolder folder_;
  fs::path out_ = folder_.path / "out" / "a";
};

TEST_F(RunDirectoryTest, Layout) {
  const RunConfig config = this->config();
  RunDirectory run(config);
  EXPECT_EQ(read_text(out_ / "config.toml"), config.resolved);
  const StageDirectory stage = run.open_stage(config, config.stages[1]);
  EXPECT_EQ(stage.path(), out_ / "ppo");
  EXPECT_EQ(stage.metrics_file(), out_ / "ppo/metrics.jsonl");
  EXPECT_EQ(read_text(out_ / "ppo/settings.txt"), stage_settings(config, config.stages[1]));
  EXPECT_EQ(stage.fingerprint().size(), 64u);
}

TEST_F(RunDirectoryTest, SummaryOnceFinished) {
  const RunConfig config = this->config();
  RunDirectory run(config);
  const StageDirectory stage = run.open_stage(config, config.stages[0]);
  EXPECT_FALSE(stage.summary());
  stage.finish({{"loss", 0.5}});
  EXPECT_EQ(run.open_stage(config, config.stages[0]).summary(), Json({{"loss", 0.5}}));
  EXPECT_FALSE(run.open_stage(config, config.stages[1]).summary());

  const Json done = read_json(stage.path() / "done.json");
  EXPECT_EQ(done["settings_sha256"], stage.fingerprint());
  write_text(stage.path() / "done.json", "{\"settings_sha256\": \"0\", \"summary\": {}}");
  EXPECT_THROW(stage.summary(), UserError);
  write_text(stage.path() / "done.json", "[]");
  EXPECT_THROW(stage.summary(), UserError);
}

TEST_F(RunDirectoryTest, ASecondProcessIsKeptOut) {
  const RunConfig config = this->config();
  {
    RunDirectory run(config);
    EXPECT_EQ(error(config), "output_dir " + out_.string() + " is in use by process " + std::to_string(getpid()) +
                                 ": wait for it, or choose another output_dir");
    const pid_t child = fork();
    if (child == 0) _exit(error(config) == "no error" ? 1 : 0);
    int status = -1;
    waitpid(child, &status, 0);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(error(config), "no error");
}

TEST_F(RunDirectoryTest, AKilledProcessLeavesNoLock) {
  const RunConfig config = this->config();
  const pid_t child = fork();
  if (child == 0) {
    RunDirectory run(config);
    raise(SIGKILL);
  }
  waitpid(child, nullptr, 0);
  EXPECT_TRUE(fs::exists(out_ / "lock"));
  EXPECT_EQ(error(config), "no error");
}

TEST_F(RunDirectoryTest, ResumeNeverRefusesAUsedFolder) {
  EXPECT_EQ(error(config({"resume=never"})), "no error");
  EXPECT_EQ(error(config({"resume=never"})), "no error");  // nothing came of it yet
  begin(config());
  EXPECT_EQ(
      error(config({"resume=never"})),
      "output_dir " + out_.string() + " holds a run already: choose another, delete it, or set resume = \"auto\"");
  EXPECT_EQ(error(config()), "no error");  // and the refusal left no lock
}

TEST_F(RunDirectoryTest, ChangedSettingsAreRefusedByName) {
  begin(config());
  const std::string saved = read_text(out_ / "config.toml");
  EXPECT_EQ(error(config({"stage.sft.actor.learning_rate=0.5", "seed=9", "plugin.sft.x=1"})),
            (out_ / "sft").string() + " was begun with other settings, by " + (out_ / "sft/settings.txt").string() +
                " (actor.learning_rate: 1e-05 -> 0.5; plugin.sft.x: (absent) -> 1; "
                "seed: 1234 -> 9): go back to them, delete that folder, or choose another output_dir");
  EXPECT_EQ(read_text(out_ / "config.toml"), saved);
  EXPECT_EQ(error(config({"stage.ppo.actor.learning_rate=0.5"})), "no error");  // not begun yet
}

TEST_F(RunDirectoryTest, AStageWithoutResultsMayBeginAgain) {
  {
    RunDirectory run(config());
    run.open_stage(config(), config().stages[0]);
  }
  const RunConfig changed = config({"seed=9"});
  RunDirectory run(changed);
  EXPECT_EQ(run.open_stage(changed, changed.stages[0]).fingerprint(),
            settings_fingerprint(stage_settings(changed, changed.stages[0])));
}

TEST_F(RunDirectoryTest, KeysThatChangeNoResultMayChange) {
  begin(config());
  const RunConfig changed = config({"log_every=3", "checkpoint_every=1", "keep_checkpoints=7", "log_level=debug",
                                    "threads=3", "plugin_path=[\"x\"]"});
  RunDirectory run(changed);
  const StageDirectory stage = run.open_stage(changed, changed.stages[0]);
  EXPECT_EQ(stage.fingerprint(), settings_fingerprint(stage_settings(config(), config().stages[0])));
  EXPECT_THAT(read_text(out_ / "sft/settings.txt"), HasSubstr("threads = 3\n"));
}

TEST_F(RunDirectoryTest, FingerprintIsTheSha256OfTheComparedLines) {
  // printf 'b = 2\nseed = 1\n' | sha256sum
  EXPECT_EQ(settings_fingerprint("seed = 1\nb = 2\nlog_every = 3\n"),
            "0bb6b96494ec63c4c0eeaaeb3c00797ccb926212b2eec3c18584989280716c47");
}

TEST_F(RunDirectoryTest, OutputDirThatIsAFile) {
  fs::create_directories(out_.parent_path());
  write_text(out_, "x");
  EXPECT_THAT(error(config()), HasSubstr("cannot make output_dir " + out_.string()));
}

}  // namespace
}  // namespace dsengine
