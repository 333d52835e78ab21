// Updates on answers of another policy than the one that is trained: ratios that are known change gradients, runs and
// metrics by known factors, and the actor's own answers change nothing.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "comm/local.h"
#include "plugin/library.h"
#include "rl/learner.h"
#include "rl/pipeline.h"
#include "rl/tiny_run.h"
#include "rl/trained_roles.h"

namespace dsengine {
namespace {

using testing::HasSubstr;

constexpr double kBound = 2;

// An algorithm that is given nothing but logp (and refuses more), on six answers whose tokens are `ratio` times as
// likely to the actor as to who gave them.
struct Uncorrected {
  PluginLibrary library{fixture("nll_rollout")};
  AlgorithmInstance algorithm{library.items()[0], OptionSet(library.items()[0], {})};
  Roles roles;
  Phases phases;
  LocalCommunicator alone;
  MetricMeans means;
  Experience e;

  explicit Uncorrected(double ratio) {
    roles.actor = std::make_shared<Role>(trained_role("llama_gqa", ModelKind::language, constant_settings(0)));
    roles.actor->settings.grad_clip = 0;
    const auto sequences = random_sequences({7, 9, 12, 6, 10, 8}, 97);
    Experience now;
    const auto rows = [&](auto told) {
      Experience made;
      for (const auto& s : sequences) {
        const auto size = s.size() - 4;
        made.add_row({s, 4, told(made, size)}, made.row_count(), Finish::eos, 1, std::vector<uint8_t>(size, 1));
      }
      return made;
    };
    now = rows([](const Experience&, size_t size) { return std::vector<float>(size, -1); });
    Learner probe = learner({Correction::truncate, kBound});
    probe.allocate(now), probe.fill_columns(now, means, false);
    e = rows([&](const Experience& made, size_t size) {
      const auto begin = now.old_logp.begin() + made.token_count();
      std::vector<float> told(begin, begin + int64_t(size));
      for (auto& logp : told) logp -= float(std::log(ratio));
      return told;
    });
    means = {};
  }

  Learner learner(const ImportanceCorrection& correction) {
    return {algorithm,
            roles,
            {.mini_batch_size = 6, .micro_batch_size = 2, .temperature = 0.7, .correction = correction},
            phases,
            alone};
  }
  std::vector<at::Tensor> gradients(const ImportanceCorrection& correction) {
    Learner learner = this->learner(correction);
    learner.allocate(e), learner.fill_columns(e, means, true), prepare(algorithm, e, means);
    learner.update(
        e, 1, 2, [](const OptimizerConfig&) { return 0.0; }, means);
    std::vector<at::Tensor> all;
    for (const auto* unit : roles.actor->model.units()) all.push_back(unit->grad().clone());
    return all;
  }
};

TEST(CorrectedUpdate, AnAlgorithmThatReadsNoOldColumnsIsCorrected) {
  const auto plain = Uncorrected(1.5).gradients({});
  Uncorrected narrow(1.5);
  const auto more = narrow.gradients({Correction::truncate, kBound});
  EXPECT_NEAR(narrow.means.mean("rollout_ratio_mean"), 1.5, 1e-5);
  EXPECT_EQ(narrow.means.mean("rollout_ratio_cut"), 0);
  Uncorrected wide(3);
  const auto most = wide.gradients({Correction::truncate, kBound});
  EXPECT_NEAR(wide.means.mean("rollout_ratio_max"), 3, 1e-5);
  EXPECT_EQ(wide.means.mean("rollout_ratio_cut"), 1);
  const auto none = Uncorrected(3).gradients({Correction::mask, kBound});
  for (size_t u = 0; u < plain.size(); ++u) {
    const double norm = plain[u].norm().item<double>();
    ASSERT_GT(norm, 0);
    // The bound of float32's sums, as in training_step_test.cpp.
    EXPECT_LE((more[u] - plain[u] * 1.5).norm().item<double>(), 1e-5 * norm);
    EXPECT_LE((most[u] - plain[u] * 2).norm().item<double>(), 1e-5 * norm);
    EXPECT_EQ(greatest(none[u]), 0);
  }
}

TEST(CorrectedUpdate, EvaluationsAreNotCorrected) {
  Uncorrected setup(3);
  const auto loss = [&](const ImportanceCorrection& correction) {
    Learner learner = setup.learner(correction);
    MetricMeans means;
    learner.allocate(setup.e), learner.fill_columns(setup.e, means, false), prepare(setup.algorithm, setup.e, means);
    return learner.evaluate(setup.e, means);
  };
  EXPECT_EQ(loss({Correction::mask, kBound}), loss({}));
}

TEST(CorrectedUpdate, AnswersWithoutTheirPolicysWordAreRefused) {
  Uncorrected setup(1);
  Experience e;
  e.add_row({{5, 6, 7}, 1, {-1}}, 0, Finish::eos, 1, std::vector<uint8_t>{1, 1});
  const Learner learner = setup.learner({Correction::mask, kBound});
  EXPECT_THAT(error_of([&] { learner.allocate(e); }), HasSubstr("answer 0 has 2 tokens and 1 log-probabilities"));
}

struct CorrectedRuns : testing::Test {
  std::filesystem::path run(const char* name, std::vector<std::string> sets) {
    const LogWatch log;
    const StopSignal stop;
    sets.push_back(tiny.elsewhere(name));
    const RunConfig config = tiny.config(
        std::string(kPpoStage) + "reward = { plugin = \"match\", kind = \"regex\", pattern = \"[a-m]\" }\n", sets);
    EXPECT_TRUE(Pipeline(config, built_plugins(), built_kernels(), stop).run_all());
    return config.output_dir / "ppo";
  }
  // The folder of a run's rollouts, each token told to have been `ratio` times less likely than it was.
  std::string rollouts(double ratio) {
    const std::filesystem::path folder = tiny.path() / "recorded";
    run("recorded_run", {"max_steps=1", "rollout.record=" + folder.string()});
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      Json rows = read_json(entry.path());
      for (auto& row : rows)
        for (auto& logp : row.at("logprobs")) logp = logp.get<double>() - std::log(ratio);
      write_text(entry.path(), rows.dump());
    }
    return folder.string();
  }

  TinyRun tiny;
};

// The rollout's log-probabilities are a training forward's bit for bit: every ratio is exactly 1.
TEST_F(CorrectedRuns, TheActorsOwnAnswersTrainToTheSameBits) {
  const auto plain = run("plain", {"ppo_epochs=2"});
  for (const std::string how : {"truncate", "mask"}) {
    const auto corrected = run(how.c_str(), {"ppo_epochs=2", "rollout.correction=" + how});
    EXPECT_TRUE(weights_of(corrected / "model") == weights_of(plain / "model")) << how;
    EXPECT_TRUE(weights_of(corrected / "critic") == weights_of(plain / "critic")) << how;
    auto lines = steps_of(corrected);
    for (auto& line : lines) {
      EXPECT_EQ(line.at("rollout_ratio_mean"), 1.0);
      EXPECT_EQ(line.at("rollout_ratio_max"), 1.0);
      EXPECT_EQ(line.at("rollout_ratio_cut"), 0.0);
      for (const char* name : {"mean", "max", "cut"}) line.erase(std::string("rollout_ratio_") + name);
    }
    EXPECT_EQ(lines, steps_of(plain)) << how;
  }
}

TEST_F(CorrectedRuns, AReplayOfAnotherPolicyIsWeighed) {
  const std::vector<std::string> replay{"max_steps=1", "rollout.replay=" + rollouts(3)};
  const auto with = [&](const std::string& correction) {
    auto sets = replay;
    sets.push_back("rollout.correction=" + correction);
    return run(correction.c_str(), sets);
  };
  const auto none = with("none"), truncated = with("truncate"), masked = with("mask");
  EXPECT_FALSE(steps_of(none)[0].contains("rollout_ratio_mean"));
  for (const auto& stage : {truncated, masked}) {
    const Json line = steps_of(stage).at(0);
    EXPECT_NEAR(line.at("rollout_ratio_mean").get<double>(), 3, 1e-4);  // float32's log-probabilities, up to 10
    EXPECT_NEAR(line.at("rollout_ratio_max").get<double>(), 3, 1e-4);
    EXPECT_EQ(line.at("rollout_ratio_cut"), 1.0);
  }
  // Every token counts twice, or not at all.
  for (const char* name : {"loss", "grad_norm", "critic_grad_norm"}) {
    const double plain = steps_of(none)[0].at(name);
    EXPECT_NEAR(steps_of(truncated)[0].at(name).get<double>(), 2 * plain, 1e-5 * std::abs(plain)) << name;
    EXPECT_EQ(steps_of(masked)[0].at(name), 0.0) << name;
  }
  EXPECT_FALSE(weights_of(truncated / "model") == weights_of(none / "model"));
}

}  // namespace
}  // namespace dsengine
