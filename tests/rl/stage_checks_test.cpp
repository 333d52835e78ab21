// What a stage that goes on is compared with: names and hashes of what it rests on, and where it computed. How its
// length may change is in stage_test.cpp.
#include "rl/stage_checks.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "rl/tiny_run.h"
#include "rl/trained_roles.h"

namespace dsengine {
namespace {

using testing::ElementsAre;

std::vector<std::string> keys_of(const Json& json) {
  std::vector<std::string> keys;
  for (const auto& [key, _] : json.items()) keys.push_back(key);
  std::sort(keys.begin(), keys.end());
  return keys;
}

TEST(StageFingerprints, NameAllThatTheResultsRestOn) {
  const LogWatch log;
  const TinyRun tiny;
  const TextModel text = TextModel::load(tiny.model(), tiny.model());
  Roles roles;
  roles.actor = std::make_shared<Role>(trained_role("llama_gqa", ModelKind::language, constant_settings(1e-3)));
  StageInputs inputs;
  inputs.fingerprints["actor"] = "as it was given";
  const auto of = [&](const std::vector<std::string>& sets) {
    const RunConfig config = tiny.config(kSftStage, sets);
    const auto data = StageData::load(config.stages[0], DSE_SOURCE_RECORDS, built_plugins(), text, config.seed);
    return stage_fingerprints(config.stages[0], inputs, data, roles, built_plugins());
  };
  const Json all = of({});
  EXPECT_THAT(keys_of(all), ElementsAre("actor", "held-out records", "plugin llama", "records"));
  EXPECT_EQ(all.at("actor"), "as it was given");
  EXPECT_THAT(keys_of(of({"data.heldout_fraction=0"})), ElementsAre("actor", "plugin llama", "records"));
  EXPECT_NE(of({"data.heldout_fraction=0"}).at("records").at("sha256"), all.at("records").at("sha256"));
  EXPECT_NE(all.at("held-out records").at("sha256"), all.at("records").at("sha256"));
  const std::string ptx = "[{path=\"" + (tiny.path() / "sft.jsonl").string() + "\"}]";
  EXPECT_THAT(keys_of(of({"ptx.coefficient=1", "ptx.sources=" + ptx})),
              ElementsAre("actor", "held-out records", "plugin llama", "ptx texts", "records"));
}

TEST(StageEnvironment, WhatIsAnotherIsWarnedOf) {
  LocalCommunicator alone;
  const Json now = environment_of(built_kernels(), alone);
  EXPECT_THAT(keys_of(now), ElementsAre("cpu", "kernels", "threads", "world_size"));
  EXPECT_EQ(now.at("world_size"), 1);
  EXPECT_NE(environment_of(reference_kernels(), alone).at("kernels"), now.at("kernels"));
  const LogWatch log;
  warn_of_environment(now, now);
  EXPECT_EQ(log.count("resume"), 0);
  Json before = now;
  before["world_size"] = 2;
  before.erase("cpu");
  warn_of_environment(before, now);
  EXPECT_EQ(log.count("resume world_size=1 before=2"), 1);
  EXPECT_EQ(log.count("resume cpu="), 1);
  EXPECT_EQ(log.count("resume"), 2);
}

}  // namespace
}  // namespace dsengine
