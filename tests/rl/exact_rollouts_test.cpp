// rollout.exact: what is refused, and that it changes nothing where rollouts are exact already.
#include "rl/other_device.h"

namespace dsengine {
namespace {

const std::string kTwo = std::string(kRewardStage) + kPpoStage;

TEST(ExactRollouts, AreWhatTheHostsKernelsMakeAnyway) {
  const TinyRun tiny;
  const Kernels kernels(built_plugins(), Device::host());
  const auto plain = run(tiny, "plain", kernels, kTwo, {"max_steps=2"});
  const auto exact = run(tiny, "exact", kernels, kTwo, {"max_steps=2", "rollout.exact=true"});
  EXPECT_EQ(weights_of(plain / "ppo/model"), weights_of(exact / "ppo/model"));
  for (const Json& step : lines_of(exact / "ppo" / "metrics.jsonl"))
    EXPECT_EQ(step.at("rollout_logp_difference_max").get<double>(), 0);
}

void expect_refused(const Kernels& kernels, const std::vector<std::string>& sets, const std::string& why) {
  const TinyRun tiny;
  try {
    run(tiny, "refused", kernels, kTwo, sets + std::vector<std::string>{"max_steps=2", "rollout.exact=true"});
    ADD_FAILURE() << why;
  } catch (const UserError& error) {
    EXPECT_NE(std::string(error.what()).find(why), std::string::npos) << error.what();
  }
}

TEST(ExactRollouts, AreRefusedWhereNoKernelsMakeThem) {
  expect_refused(reference_kernels(), {}, "not every operation");
}

TEST(ExactRollouts, AreRefusedForNarrowerWeights) {
  const Kernels kernels(built_plugins(), Device::host());
  expect_refused(kernels, {"rollout.weights=int8"}, "rollout.weights");
}

}  // namespace
}  // namespace dsengine
