// Runs in bfloat16: near the float32 run, resumed to the same bits, and the same bits wherever the weights lie.
#include "rl/other_device.h"

namespace dsengine {
namespace {

const std::string kThree = std::string(kSftStage) + kRewardStage + kPpoStage;

std::vector<std::string> with(std::vector<std::string> sets) {
  sets.push_back("dtype=bf16");
  return sets;
}

std::vector<Json> metrics_of(const std::filesystem::path& stage) { return lines_of(stage / "metrics.jsonl"); }

TEST(Bf16Run, LearnsWhatTheFloat32RunDoes) {
  const TinyRun tiny;
  const auto exact = run(tiny, "exact", reference_kernels(), kThree, {});
  const auto near = run(tiny, "near", reference_kernels(), kThree, with({}));
  for (const char* stage : {"sft", "reward"}) {
    const auto a = metrics_of(exact / stage), b = metrics_of(near / stage);
    ASSERT_EQ(a.size(), b.size());
    ASSERT_GT(a.size(), 1u);
    for (size_t i = 0; i < a.size(); ++i)
      EXPECT_NEAR(a[i].at("loss").get<double>(), b[i].at("loss").get<double>(), 0.05) << stage << " " << i;
  }
  // Answers are drawn from other numbers, and what the update computes differs from what the rollout told by no more
  // than bfloat16 does.
  for (const Json& step : metrics_of(near / "ppo"))
    EXPECT_LT(step.at("rollout_logp_difference_mean").get<double>(), 0.02);
}

class Bf16Kept : public testing::TestWithParam<std::vector<std::string>> {};

// offload.* says where weights lie, not what they are.
TEST_P(Bf16Kept, IsTheSameElsewhere) {
  const TinyRun tiny;
  const auto here = run(tiny, "here", reference_kernels(), kThree, with(GetParam()));
  auto sets = with(GetParam());
  for (const char* what : {"moments", "gradients", "average", "weights", "frozen"})
    sets.push_back(fmt::format("offload.{}=true", what));
  const auto away = run(tiny, "away", reference_kernels(), kThree, sets);
  for (const char* stage : {"sft", "reward", "ppo"})
    EXPECT_EQ(weights_of(here / stage / "model"), weights_of(away / stage / "model")) << stage;
}

INSTANTIATE_TEST_SUITE_P(
    Settings, Bf16Kept,
    testing::ValuesIn(std::vector<std::vector<std::string>>{
        {"ema_decay=0.9"}, {"lora.rank=4", "lora.base=nf4"}, {"lora.rank=4", "lora.also_train=[\"norms\"]"}}));

// Without float32 values beside: what is saved is bfloat16, wherever moments lie, and the run learns alike.
TEST(Bf16Run, NeedsNoMasterWeights) {
  const TinyRun tiny;
  const std::vector<std::string> narrow{"master_weights=false", "moments=bf16", "ema_decay=0.9"};
  const auto exact = run(tiny, "exact", reference_kernels(), kThree, with({}));
  const auto here = run(tiny, "here", reference_kernels(), kThree, with(narrow));
  for (const char* stage : {"sft", "reward"}) {
    const auto a = metrics_of(exact / stage), b = metrics_of(here / stage);
    ASSERT_EQ(a.size(), b.size());
    for (size_t i = 0; i < a.size(); ++i)
      EXPECT_NEAR(a[i].at("loss").get<double>(), b[i].at("loss").get<double>(), 0.05) << stage << " " << i;
  }
  const Model trained = load_model(here / "sft/model", built_plugins(), reference_kernels(), {});
  for (const auto* unit : trained.units())
    EXPECT_TRUE(at::equal(unit->flat().to(at::kBFloat16).to(at::kFloat), unit->flat())) << unit->name();
  const auto away = run(tiny, "away", reference_kernels(), kThree,
                        with(narrow + std::vector<std::string>{"offload.moments=true", "offload.gradients=true",
                                                               "offload.average=true", "offload.frozen=true"}));
  for (const char* stage : {"sft", "reward", "ppo"})
    for (const char* model : {"model", "ema"})
      EXPECT_EQ(weights_of(here / stage / model), weights_of(away / stage / model)) << stage << " " << model;
  EXPECT_THROW(run(tiny, "refused", reference_kernels(), kThree,
                   with({"master_weights=false", "offload.moments=true", "offload.gradients=true",
                         "offload.average=true", "offload.weights=true"})),
               UserError);
}

TEST(Bf16Run, ResumesToTheSameBitsWithoutMasterWeights) {
  expect_resumed_to_the_same_bits(reference_kernels(), {"dtype=bf16", "master_weights=false", "moments=bf16"});
}

TEST(Bf16Run, ResumesToTheSameBits) { expect_resumed_to_the_same_bits(reference_kernels(), {"dtype=bf16"}); }

}  // namespace
}  // namespace dsengine
