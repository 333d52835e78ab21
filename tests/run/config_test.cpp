// The configuration file: what each mistake says, who overrides whom, and that the resolved text is the run.
#include "run/config_reader.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "base/check.h"
#include "base/json.h"
#include "run/config_print.h"
#include "run/scratch_folder.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

constexpr const char* kTwoStages = R"(seed = 7
output_dir = "out"
plugins = [{ file = "libdse_x.so" }]

[model]
actor = "m"

[data]
sources = [{ reader = "jsonl", path = "a.jsonl", split = "train" }]
max_length = 99

[[stage]]
name = "sft"
algorithm = "sft"
learning_rate = 1e-4

[[stage]]
name = "ppo"
algorithm = "ppo"
weight_decay = 0.5
actor = { learning_rate = 9.65e-6, from = "sft" }
critic = { from = "other" }
reward = { plugin = "model", from = "sft", scale = 3, "odd key" = "a\"b\\\n" }
rollout = { batch_size = 8, temperature = 1 }
plugin.ppo = { kl_coef = 0.1, whiten = true }
data = { max_prompt_length = 5, heldout = [{ path = "/abs/b.jsonl" }] }
)";

// The smallest configuration, and then `more` from line 4 on, in the stage.
std::string one_stage(const std::string& more) { return "[[stage]]\nname = \"one\"\nalgorithm = \"sft\"\n" + more; }

class ConfigTest : public testing::Test {
 protected:
  RunConfig load(const std::string& text, const std::vector<std::string>& sets = {}) {
    write_text(file_, text);
    return load_config(file_, sets);
  }

  // The error's text without the folder of the file.
  std::string error(const std::string& text, const std::vector<std::string>& sets = {}) {
    try {
      load(text, sets);
    } catch (const UserError& problem) {
      std::string what = problem.what();
      const std::string folder = folder_.path.string() + "/";
      for (auto at = what.find(folder); at != std::string::npos; at = what.find(folder)) what.erase(at, folder.size());
      EXPECT_EQ(what.find('\n'), std::string::npos) << what;
      return what;
    }
    return "no error";
  }

  ScratchFolder folder_;
  fs::path file_ = folder_.path / "run.toml";
};

TEST_F(ConfigTest, ReadsWhatTheFileSays) {
  const RunConfig config = load(kTwoStages);
  EXPECT_EQ(config.seed, 7u);
  EXPECT_EQ(config.model.actor, folder_.path / "m");
  EXPECT_EQ(config.plugins.at(0).file, folder_.path / "libdse_x.so");
  ASSERT_EQ(config.stages.size(), 2u);
  const StageConfig &sft = config.stages[0], &ppo = config.stages[1];
  EXPECT_EQ(ppo.name, "ppo");
  EXPECT_EQ(ppo.rollout.batch_size, 8);
  EXPECT_EQ(ppo.rollout.temperature, 1.0);
  EXPECT_EQ(ppo.reward.plugin, "model");
  EXPECT_EQ(std::get<int64_t>(ppo.reward.options.at("scale").value), 3);
  EXPECT_EQ(std::get<std::string>(ppo.reward.options.at("odd key").value), "a\"b\\\n");
  EXPECT_EQ(std::get<double>(ppo.plugin.at("ppo").at("kl_coef").value), 0.1);
  EXPECT_EQ(std::get<bool>(ppo.plugin.at("ppo").at("whiten").value), true);
  EXPECT_EQ(ppo.plugin.at("ppo").at("kl_coef").where, file_.string() + ":25: stage.ppo.plugin.ppo.kl_coef");
  EXPECT_EQ(std::get<std::string>(sft.data.sources.at(0).options.at("split").value), "train");
}

TEST_F(ConfigTest, StageKeysAreDefaultsOfTheRolesAndDataOfTheStages) {
  const RunConfig config = load(kTwoStages);
  const StageConfig &sft = config.stages[0], &ppo = config.stages[1];
  EXPECT_EQ(sft.actor.optimizer.learning_rate, 1e-4);
  EXPECT_EQ(sft.critic.optimizer.learning_rate, 1e-4);
  EXPECT_EQ(ppo.actor.optimizer.learning_rate, 9.65e-6);
  EXPECT_EQ(ppo.actor.optimizer.weight_decay, 0.5);
  EXPECT_EQ(ppo.critic.optimizer.learning_rate, OptimizerConfig{}.learning_rate);
  EXPECT_EQ(sft.data.max_length, 99);
  EXPECT_EQ(ppo.data.max_length, 99);
  EXPECT_EQ(sft.data.max_prompt_length, DataConfig{}.max_prompt_length);
  EXPECT_EQ(ppo.data.max_prompt_length, 5);
  EXPECT_EQ(ppo.data.sources.at(0).path, folder_.path / "a.jsonl");
  EXPECT_TRUE(sft.data.heldout.empty());
  EXPECT_EQ(ppo.data.heldout.at(0).path, "/abs/b.jsonl");
}

TEST_F(ConfigTest, AStageReplacesSourcesWhole) {
  const std::string text = std::string(kTwoStages) +
                           "[[stage]]\nname = \"x\"\nalgorithm = \"sft\"\n"
                           "[[stage.data.sources]]\npath = \"c\"\n[[stage.data.sources]]\npath = \"d\"\n";
  const RunConfig config = load(text);
  ASSERT_EQ(config.stages[2].data.sources.size(), 2u);
  EXPECT_EQ(config.stages[2].data.sources[1].path, folder_.path / "d");
  EXPECT_TRUE(config.stages[2].data.sources[0].options.empty());
  EXPECT_EQ(config.stages[0].data.sources.size(), 1u);
}

TEST_F(ConfigTest, SplitsAreListsOfShares) {
  const std::string split = "data.split = [2, 0, 4.5]\ndata.part = 3\n";
  const RunConfig config = load(one_stage(split));
  EXPECT_EQ(config.stages[0].data.split, (std::vector<double>{2, 0, 4.5}));
  EXPECT_EQ(config.stages[0].data.part, 3);
  EXPECT_NE(config.resolved.find("split = [2.0, 0.0, 4.5]"), std::string::npos) << config.resolved;
  EXPECT_EQ(load(config.resolved).stages[0].data.split, config.stages[0].data.split);
  EXPECT_NE(stage_settings(config, config.stages[0]).find("data.split = [2.0, 0.0, 4.5]"), std::string::npos);
  EXPECT_EQ(load("data.split = [1, 1]\n" + one_stage("")).stages[0].data.split, (std::vector<double>{1, 1}));
  EXPECT_EQ(load(one_stage(split), {"data.split=[1,2]"}).stages[0].data.split, (std::vector<double>{1, 2}));
  const auto wrong = [&](const std::string& value) { return error(one_stage("data.split = " + value + "\n")); };
  EXPECT_EQ(wrong("[1, -2]"), "run.toml:4: 'stage.one.data.split[1]' must be at least 0, is -2");
  EXPECT_EQ(wrong("[1, \"a\"]"), "run.toml:4: 'stage.one.data.split[1]' expects a number, has a string");
  EXPECT_EQ(wrong("2"), "run.toml:4: 'stage.one.data.split' expects an array of numbers, has an integer");
  for (const char* value : {"[1]", "[0, 0]"})
    EXPECT_EQ(wrong(value), "run.toml:2: stage 'one': data.split needs two shares or more, not all of them 0");
}

TEST_F(ConfigTest, FromIsAnEarlierStageOrAFolderBesideTheFile) {
  const RunConfig config = load(kTwoStages);
  EXPECT_EQ(config.stages[1].actor.from, "sft");
  EXPECT_EQ(config.stages[1].reward.from, "sft");
  EXPECT_EQ(config.stages[1].critic.from, (folder_.path / "other").string());
  EXPECT_EQ(config.stages[1].reference.from, "");
  EXPECT_EQ(error(one_stage("actor.from = \"one\"\n")),
            "run.toml:2: stage 'one' takes a model from stage 'one', which does not come before it (for a folder, "
            "write './one')");
  EXPECT_EQ(load(one_stage("actor.from = \"./one\"\n")).stages[0].actor.from, (folder_.path / "one").string());
}

TEST_F(ConfigTest, DefaultsThenFileThenSet) {
  EXPECT_EQ(load(one_stage("")).stages[0].mini_batch_size, StageConfig{}.mini_batch_size);
  EXPECT_EQ(load(one_stage("mini_batch_size = 5\n")).stages[0].mini_batch_size, 5);
  EXPECT_EQ(load(one_stage("mini_batch_size = 5\n"), {"mini_batch_size=6"}).stages[0].mini_batch_size, 6);
  EXPECT_EQ(load(one_stage(""), {"seed=3", "seed=4"}).seed, 4u);
}

TEST_F(ConfigTest, SetReachesEveryStageOrOne) {
  const RunConfig config =
      load(kTwoStages, {"max_steps=5", "stage.ppo.max_steps=6", "rollout.batch_size=3", "stage.sft.rollout.top_k=2",
                        "data.max_prompt_length=9", "learning_rate=2e-3", "actor.beta1=0.5"});
  const StageConfig &sft = config.stages[0], &ppo = config.stages[1];
  EXPECT_EQ(sft.max_steps, 5);
  EXPECT_EQ(ppo.max_steps, 6);
  EXPECT_EQ(sft.rollout.batch_size, 3);
  EXPECT_EQ(ppo.rollout.batch_size, 3);
  EXPECT_EQ(sft.rollout.top_k, 2);
  EXPECT_EQ(ppo.rollout.top_k, 0);
  EXPECT_EQ(sft.data.max_prompt_length, 9);
  EXPECT_EQ(ppo.data.max_prompt_length, 9);            // though the file has 5 in the stage
  EXPECT_EQ(ppo.actor.optimizer.learning_rate, 2e-3);  // though the file has another for the actor
  EXPECT_EQ(ppo.actor.optimizer.beta1, 0.5);
  EXPECT_EQ(ppo.critic.optimizer.beta1, OptimizerConfig{}.beta1);
  EXPECT_EQ(ppo.actor.from, "sft");
}

TEST_F(ConfigTest, SetOfAPluginReachesTheStagesThatUseIt) {
  const RunConfig config = load(kTwoStages, {"plugin.ppo.kl_coef=0.25", "plugin.ppo.mode=abc"});
  EXPECT_EQ(std::get<double>(config.stages[1].plugin.at("ppo").at("kl_coef").value), 0.25);
  EXPECT_EQ(std::get<std::string>(config.stages[1].plugin.at("ppo").at("mode").value), "abc");
  EXPECT_TRUE(std::get<bool>(config.stages[1].plugin.at("ppo").at("whiten").value));
  EXPECT_EQ(config.stages[1].plugin.at("ppo").at("kl_coef").where,
            "--set plugin.ppo.kl_coef=0.25: stage.ppo.plugin.ppo.kl_coef");
  EXPECT_TRUE(config.stages[0].plugin.empty());
}

TEST_F(ConfigTest, OlderNamesOfKeysAreTaken) {
  const std::string stage = "[[stage]]\nname = \"one\"\nalgorithm = \"ppo\"\n";
  const auto config =
      load(stage + "reward = { adapter = \"match\" }\ndata.sources = [{ path = \"x\", adapter = \"text\" }]\n");
  EXPECT_EQ(config.stages[0].reward.plugin, "match");
  EXPECT_EQ(config.stages[0].data.sources[0].reader, "text");
  EXPECT_EQ(config.resolved.find("adapter ="), std::string::npos);
  EXPECT_EQ(error(stage + "reward = { adapter = \"a\", plugin = \"b\" }\n"),
            "run.toml:4: 'stage.one.reward.plugin' and its older name 'adapter' are both given");
  // --set goes over the file, whichever name either has.
  const std::string older = stage + "reward = { adapter = \"a\" }\n", newer = stage + "reward = { plugin = \"a\" }\n";
  for (const auto& file : {older, newer})
    for (const std::string set : {"stage.one.reward.adapter=b", "reward.plugin=b", "reward={adapter=\"b\"}"})
      EXPECT_EQ(load(file, {set}).stages[0].reward.plugin, "b") << file << set;
}

TEST_F(ConfigTest, SetValuesAreTomlOrBareStrings) {
  const RunConfig config = load(kTwoStages, {"log_level=debug", "model.actor=123", "data.train_on=\"all\"",
                                             "rollout.record=", "data.sources=[{path=\"x\", weight=2}, {path=\"y\"}]",
                                             "reward={plugin=\"other\"}"});
  EXPECT_EQ(config.log_level, LogLevel::debug);
  EXPECT_EQ(config.model.actor,
            fs::current_path() / "123");  // wants a string, and --set is of the working directory
  EXPECT_EQ(config.stages[0].data.train_on, TrainOn::all);
  EXPECT_EQ(config.stages[1].rollout.record, "");
  ASSERT_EQ(config.stages[1].data.sources.size(), 2u);
  EXPECT_EQ(config.stages[1].data.sources[0].path, fs::current_path() / "x");
  EXPECT_EQ(config.stages[1].data.sources[0].weight, 2.0);
  EXPECT_EQ(config.stages[1].reward.plugin, "other");
  EXPECT_EQ(config.stages[1].reward.from, "sft");  // a table is merged
  // A line break adds no second key.
  EXPECT_THROW(load(kTwoStages, {"threads=1\nseed = 1"}), UserError);
}

TEST_F(ConfigTest, OutputDirIsRelativeToTheWorkingDirectory) {
  EXPECT_EQ(load(kTwoStages).output_dir, fs::current_path() / "out");
  EXPECT_EQ(load(one_stage("")).output_dir, fs::current_path() / "runs/default");
}

TEST_F(ConfigTest, ResolvedReadsBackToItself) {
  const RunConfig first =
      load(kTwoStages, {"actor.learning_rate=0.1", "rollout.top_p=0.30000000000000004",
                        "rollout.stop=[\"\\nHuman: \", \"\u00e9\"]", "rollout.stop_token_ids=[7, 0]"});
  const fs::path elsewhere = folder_.path / "deep";
  fs::create_directory(elsewhere);
  write_text(elsewhere / "config.toml", first.resolved);
  const RunConfig second = load_config(elsewhere / "config.toml");
  EXPECT_EQ(second.resolved, first.resolved);
  EXPECT_EQ(second.stages[1].rollout.top_p, 0.30000000000000004);
  EXPECT_EQ(second.stages[1].rollout.stop, (std::vector<std::string>{"\nHuman: ", "\u00e9"}));
  EXPECT_EQ(second.stages[1].rollout.stop_token_ids, (std::vector<int64_t>{7, 0}));
  EXPECT_EQ(second.stages[1].reward.options.at("odd key").value, first.stages[1].reward.options.at("odd key").value);
  EXPECT_EQ(second.stages[1].critic.from, first.stages[1].critic.from);
  EXPECT_EQ(stage_settings(second, second.stages[1]), stage_settings(first, first.stages[1]));
  EXPECT_NE(first.resolved.find("\n[stage.critic]\n"), std::string::npos);
}

TEST_F(ConfigTest, StageSettingsLeaveOtherStagesOut) {
  const RunConfig before = load(kTwoStages), now = load(kTwoStages, {"stage.ppo.ppo_epochs=9"});
  EXPECT_EQ(stage_settings(before, before.stages[0]), stage_settings(now, now.stages[0]));
  EXPECT_NE(stage_settings(before, before.stages[1]), stage_settings(now, now.stages[1]));
  EXPECT_NE(stage_settings(now, now.stages[1]).find("\nppo_epochs = 9\n"), std::string::npos);
  EXPECT_EQ(stage_settings(now, now.stages[0]).find("seed = 7\n"), 0u);
}

TEST_F(ConfigTest, MissingFileAndSyntax) {
  try {
    load_config(folder_.path / "none.toml");
    FAIL();
  } catch (const UserError& problem) {
    EXPECT_EQ(problem.what(), "cannot read " + (folder_.path / "none.toml").string() + ": No such file or directory");
  }
  EXPECT_EQ(error("seed = 1\noutput_dir = \"a\n").substr(0, 13), "run.toml:2:16");
  EXPECT_NE(error("seed = 1\nseed = 2\n").find("run.toml:2:"), std::string::npos);
}

TEST_F(ConfigTest, UnknownKeys) {
  EXPECT_EQ(error("sed = 1\n" + one_stage("")), "run.toml:1: unknown key 'sed'; did you mean 'seed'?");
  EXPECT_EQ(error(one_stage("max_step = 1\n")),
            "run.toml:4: unknown key 'stage.one.max_step'; did you mean 'stage.one.max_steps'?");
  EXPECT_EQ(error(one_stage("[stage.rollout]\nbatchsize = 1\n")),
            "run.toml:5: unknown key 'stage.one.rollout.batchsize'; did you mean 'stage.one.rollout.batch_size'?");
  EXPECT_EQ(error(one_stage("max_response_length = 1\n")),
            "run.toml:4: unknown key 'stage.one.max_response_length'; did you mean 'rollout.max_response_length'?");
  EXPECT_EQ(error(one_stage("kl_coef = 1\n")),
            "run.toml:4: unknown key 'stage.one.kl_coef'; an option of a plugin goes under plugin.<its name>");
  EXPECT_EQ(error("max_steps = 1\n" + one_stage("")),
            "run.toml:1: unknown key 'max_steps'; it is a key of a [[stage]]");
  EXPECT_EQ(error("plugins = [{ file = \"a\", sha_256 = \"b\" }]\n" + one_stage("")),
            "run.toml:1: unknown key 'plugins[0].sha_256'; did you mean 'plugins[0].sha256'?");
  EXPECT_EQ(error(one_stage("reference = { learning_rate = 1 }\n")).substr(0, 62),
            "run.toml:4: unknown key 'stage.one.reference.learning_rate'; d");
}

TEST_F(ConfigTest, WrongTypes) {
  EXPECT_EQ(error("seed = \"1\"\n" + one_stage("")), "run.toml:1: 'seed' expects an integer, has a string");
  EXPECT_EQ(error(one_stage("epochs = 1.5\n")),
            "run.toml:4: 'stage.one.epochs' expects an integer, has a number with a fraction");
  EXPECT_EQ(error(one_stage("learning_rate = \"1e-4\"\n")),
            "run.toml:4: 'stage.one.learning_rate' expects a number, has a string");
  EXPECT_EQ(error(one_stage("recompute = 1\n")),
            "run.toml:4: 'stage.one.recompute' expects true or false, has an integer");
  EXPECT_EQ(error(one_stage("actor = 1\n")), "run.toml:4: 'stage.one.actor' expects a table, has an integer");
  EXPECT_EQ(error(one_stage("actor = { from = 1 }\n")),
            "run.toml:4: 'stage.one.actor.from' expects a string, has an integer");
  EXPECT_EQ(error("[data]\nsources = { path = \"a\" }\n" + one_stage("")),
            "run.toml:2: 'data.sources' expects an array of tables, has a table");
  EXPECT_EQ(error("plugin_path = [\"a\", 2]\n" + one_stage("")),
            "run.toml:1: 'plugin_path[1]' expects a string, has an integer");
  EXPECT_EQ(error(one_stage("plugin.ppo = { clip = [1] }\n")),
            "run.toml:4: 'stage.one.plugin.ppo.clip' expects a boolean, a number or a string, has an array");
  EXPECT_EQ(error("stage = 3\n"), "run.toml:1: 'stage' expects an array of tables, has an integer");
}

TEST_F(ConfigTest, Ranges) {
  EXPECT_EQ(error("seed = -1\n" + one_stage("")), "run.toml:1: 'seed' must be at least 0, is -1");
  EXPECT_EQ(error(one_stage("epochs = 0\n")), "run.toml:4: 'stage.one.epochs' must be at least 1, is 0");
  EXPECT_EQ(error(one_stage("beta1 = 1\n")), "run.toml:4: 'stage.one.beta1' must be at least 0 and below 1, is 1");
  EXPECT_EQ(error(one_stage("critic.min_lr_ratio = 1.5\n")),
            "run.toml:4: 'stage.one.critic.min_lr_ratio' must be from 0 to 1, is 1.5");
  EXPECT_EQ(error(one_stage("rollout.top_p = 0.0\n")),
            "run.toml:4: 'stage.one.rollout.top_p' must be above 0 and at most 1, is 0");
  EXPECT_EQ(error(one_stage("rollout.min_p = 1.5\n")),
            "run.toml:4: 'stage.one.rollout.min_p' must be from 0 to 1, is 1.5");
  EXPECT_EQ(error(one_stage("rollout.repetition_penalty = 0\n")),
            "run.toml:4: 'stage.one.rollout.repetition_penalty' must be above 0, is 0");
  EXPECT_EQ(error(one_stage("rollout.correction = \"cut\"\n")),
            "run.toml:4: 'stage.one.rollout.correction' must be one of none, truncate, mask, is 'cut'");
  EXPECT_EQ(error(one_stage("rollout.correction_bound = 1\n")),
            "run.toml:4: 'stage.one.rollout.correction_bound' must be above 1, is 1");
  EXPECT_EQ(error(one_stage("rollout.stop = [\"a\", \"\"]\n")), "run.toml:4: 'stage.one.rollout.stop[1]' is empty");
  EXPECT_EQ(error(one_stage("rollout.stop = \"a\"\n")),
            "run.toml:4: 'stage.one.rollout.stop' expects an array of strings, has a string");
  EXPECT_EQ(error(one_stage("rollout.stop_token_ids = [2, -1]\n")),
            "run.toml:4: 'stage.one.rollout.stop_token_ids[1]' must be from 0 to 2147483647, is -1");
  EXPECT_EQ(error(one_stage("rollout.stop_token_ids = [\"</s>\"]\n")),
            "run.toml:4: 'stage.one.rollout.stop_token_ids[0]' expects an integer, has a string");
  EXPECT_EQ(error(one_stage("learning_rate = nan\n")),
            "run.toml:4: 'stage.one.learning_rate' must be at least 0, is nan");
  EXPECT_EQ(error(one_stage("reward.weight = inf\n")), "run.toml:4: 'stage.one.reward.weight' must be finite, is inf");
  // An integer where a number is asked, that no double holds: 2^53 + 1; and counts whose sums would overflow.
  EXPECT_EQ(error(one_stage("learning_rate = 9007199254740993\n")),
            "run.toml:4: 'stage.one.learning_rate' is 9007199254740993, which no floating-point number holds exactly");
  EXPECT_EQ(error("[data]\nsplit = [1, 9007199254740993]\n" + one_stage("")),
            "run.toml:2: 'data.split[1]' is 9007199254740993, which no floating-point number holds exactly");
  EXPECT_EQ(load("seed = 9007199254740993\n" + one_stage("learning_rate = 1\n")).seed, 9007199254740993u);
  for (const char* key : {"max_steps", "mini_batch_size", "eval_rows", "rollout.slots", "rollout.max_response_length",
                          "rollout.top_k", "data.max_length"}) {
    EXPECT_EQ(error(one_stage(std::string(key) + " = 2147483648\n")),
              "run.toml:4: 'stage.one." + std::string(key) + "' must be at most 2147483647, is 2147483648");
    EXPECT_EQ(error(one_stage(std::string(key) + " = 2147483647\n")), "no error");
  }
  EXPECT_EQ(error(one_stage("schedule = \"cosin\"\n")),
            "run.toml:4: 'stage.one.schedule' must be one of cosine, linear, constant, is 'cosin'");
}

TEST_F(ConfigTest, StagesMustBeNamedApart) {
  EXPECT_EQ(error("seed = 1\n"), "run.toml: no [[stage]]: a run needs one, with name and algorithm");
  EXPECT_EQ(error("[[stage]]\nalgorithm = \"sft\"\n"), "run.toml:1: missing key 'stage[0].name'");
  EXPECT_EQ(error("\n[[stage]]\nname = \"a\"\n"), "run.toml:2: missing key 'stage.a.algorithm'");
  EXPECT_EQ(error(one_stage(one_stage(""))), "run.toml:5: stage name 'one' is taken by an earlier stage");
  EXPECT_EQ(error("[[stage]]\nname = \"../a\"\nalgorithm = \"sft\"\n"),
            "run.toml:2: stage name '../a' may have letters, digits, - and _ only, for it names a folder");
  EXPECT_EQ(error("[[stage]]\nname = \"\"\nalgorithm = \"sft\"\n"), "run.toml:2: 'stage..name' is empty");
}

TEST_F(ConfigTest, SetErrors) {
  const auto set_error = [&](const std::string& set) { return error(kTwoStages, {set}); };
  EXPECT_EQ(set_error("seed"), "--set seed: give it as key=value");
  EXPECT_EQ(set_error("=3"), "--set =3: give it as key=value");
  EXPECT_EQ(set_error("seed=abc"), "--set seed=abc: 'seed' expects an integer, has a string");
  EXPECT_EQ(set_error("max_step=2"), "--set max_step=2: unknown key 'max_step'; did you mean 'max_steps'?");
  EXPECT_EQ(set_error("sede=2"), "--set sede=2: unknown key 'sede'; did you mean 'seed'?");
  EXPECT_EQ(set_error("modl.actor=2"), "--set modl.actor=2: unknown key 'modl.actor'; did you mean 'model.actor'?");
  EXPECT_EQ(set_error("rollout_batch_size=2"),
            "--set rollout_batch_size=2: unknown key 'rollout_batch_size'; did you mean 'rollout.batch_size'?");
  EXPECT_EQ(set_error("kl_coef=2"),
            "--set kl_coef=2: unknown key 'kl_coef'; an option of a plugin goes under plugin.<its name>");
  EXPECT_EQ(set_error("stage.pp.epochs=2"), "--set stage.pp.epochs=2: no stage 'pp'; did you mean 'ppo'?");
  EXPECT_EQ(set_error("stage.ppo=2"), "--set stage.ppo=2: give it as stage.<name>.<key>");
  EXPECT_EQ(set_error("stage.ppo.epoch=2"), "--set stage.ppo.epoch=2: unknown key 'epoch'; did you mean 'epochs'?");
  EXPECT_EQ(set_error("stage.ppo.epochs=0"), "--set stage.ppo.epochs=0: 'stage.ppo.epochs' must be at least 1, is 0");
  EXPECT_EQ(set_error("data.sources=[{path=x}]").substr(0, 49), "--set data.sources=[{path=x}]: not valid TOML: Er");
  EXPECT_EQ(set_error("model=3"), "--set model=3: 'model' expects a table, has an integer");
  EXPECT_EQ(error(one_stage("actor = 3\n"), {"actor.beta1=0.5"}),
            "--set actor.beta1=0.5: 'actor' is not a table in the file");
}

TEST_F(ConfigTest, ReferenceNamesEveryKeyWithItsDefault) {
  const std::string docs = config_reference_markdown();
  EXPECT_NE(docs.find("| `seed` | integer | `1234` |"), std::string::npos) << docs;
  EXPECT_NE(docs.find("## `stage[].rollout`"), std::string::npos);
  EXPECT_NE(docs.find("| `top_p` | number | `1.0` | keep the likeliest tokens up to this probability (above 0 and at "
                      "most 1) |"),
            std::string::npos);
  EXPECT_NE(docs.find("The keys of `stage[].actor`."), std::string::npos);
}

TEST_F(ConfigTest, BuiltInConfiguration) {
  setenv("DSENGINE_SHARE", folder_.path.c_str(), 1);
  EXPECT_THROW(built_in_config(), UserError);
  write_text(folder_.path / "rlhf_tiny.toml", one_stage(""));
  EXPECT_EQ(built_in_config(), folder_.path / "rlhf_tiny.toml");
  unsetenv("DSENGINE_SHARE");
  try {
    built_in_config();
  } catch (const UserError& problem) {
    EXPECT_NE(std::string(problem.what()).find("share/dsengine/examples/rlhf_tiny.toml"), std::string::npos);
  }
}

}  // namespace
}  // namespace dsengine
