// A model's copies under another kind of head.
#include "model/model.h"

#include <gtest/gtest.h>

#include "golden_models.h"

namespace dsengine {
namespace {

// A reward model from an actor, a critic from a reward model: the body is copied, the head is new or copied.
TEST(Model, KindsShareTheBody) {
  const Model actor = golden_model("llama_gqa"), reward = actor.clone(ModelKind::value);
  const Batch batch = pack_all(random_sequences({6, 3}, 97));
  EXPECT_TRUE(same_bits(actor.hidden(batch), reward.hidden(batch)));
  EXPECT_EQ(reward.values(reward.hidden(batch), at::arange(9, at::kLong)).abs().max().item<float>(), 0);
  const Model trained = golden_model("llama_reward", ModelKind::value), critic = trained.clone(ModelKind::value);
  EXPECT_TRUE(same_bits(trained.values(trained.hidden(batch), at::arange(9, at::kLong)),
                        critic.values(critic.hidden(batch), at::arange(9, at::kLong))));
}

}  // namespace
}  // namespace dsengine
