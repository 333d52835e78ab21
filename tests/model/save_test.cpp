// A directory that is loaded and saved holds the same tensors, under both kinds of head. The saved directories stay
// in <build>/tests/saved, where transformers reads them (tests/golden/check_saved.py).
#include <gtest/gtest.h>

#include "base/json.h"
#include "golden_models.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

class Saved : public testing::TestWithParam<std::string> {};

TEST_P(Saved, DirectoryHoldsTheSameTensors) {
  const ModelKind kind = golden_kind(GetParam());
  const fs::path directory = fs::path(DSE_BINARY_DIR) / "tests/saved" / GetParam();
  fs::remove_all(directory);
  fs::create_directories(directory);
  const Model model = golden_model(GetParam(), kind);
  model.save(directory, golden(GetParam()));
  const Model again = golden_model(directory, kind);
  const auto before = model.tensors(), after = again.tensors();
  ASSERT_EQ(before.size(), after.size());
  for (size_t i = 0; i < before.size(); ++i)
    EXPECT_TRUE(same_bits(before[i].tensor, after[i].tensor)) << before[i].spec->tensor;
  EXPECT_TRUE(fs::exists(directory / "generation_config.json"));
  EXPECT_EQ(read_json(directory / "config.json").at("architectures"),
            read_json(golden(GetParam()) / "config.json").at("architectures"));
}

INSTANTIATE_TEST_SUITE_P(Golden, Saved,
                         testing::ValuesIn(golden_names("causal_lm") + golden_names("reward") +
                                           std::vector<std::string>{"llama_gqa_sharded"}),
                         [](const auto& info) { return info.param; });

// A reward model from an actor, a critic from a reward model: the body is copied, the head is new or copied.
TEST(Model, KindsShareTheBody) {
  const Model actor = golden_model("llama_gqa"), reward = actor.clone(ModelKind::value);
  const Packed batch = pack_all(random_sequences({6, 3}, 97));
  EXPECT_TRUE(same_bits(actor.hidden(batch), reward.hidden(batch)));
  EXPECT_EQ(reward.values(reward.hidden(batch), at::arange(9, at::kLong)).abs().max().item<float>(), 0);
  const Model trained = golden_model("llama_reward", ModelKind::value), critic = trained.clone(ModelKind::value);
  EXPECT_TRUE(same_bits(trained.values(trained.hidden(batch), at::arange(9, at::kLong)),
                        critic.values(critic.hidden(batch), at::arange(9, at::kLong))));
}

}  // namespace
}  // namespace dsengine
