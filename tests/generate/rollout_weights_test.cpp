// Narrower weights for generation: how far the distribution moves, what is packed, and what stays exact.
#include "model/rollout_weights.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "generate/decoder.h"
#include "memory/counting_allocator.h"
#include "memory/ledger.h"
#include "model/golden_models.h"

namespace dsengine {
namespace {

// Logits of every prefix of a sequence, as generation computes them.
at::Tensor logits_of(const Model& model, const std::vector<int32_t>& sequence) {
  Decoder decoder(model);
  decoder.cache().reserve(KvCache::blocks_of(int64_t(sequence.size())));
  Sequence s = decoder.begin(int64_t(sequence.size()));
  std::vector<at::Tensor> rows;
  for (const auto& token : sequence) rows.push_back(decoder.forward({&s}, {std::span(&token, 1)}));
  return at::cat(rows);
}

double mean_kl(const at::Tensor& p_logits, const at::Tensor& q_logits) {
  const auto p = at::log_softmax(p_logits.to(at::kDouble), 1), q = at::log_softmax(q_logits.to(at::kDouble), 1);
  return (p.exp() * (p - q)).sum(1).mean().item<double>();
}

class RolloutWeights_ : public testing::TestWithParam<std::string> {};

TEST_P(RolloutWeights_, MoveTheDistributionLittle) {
  Model model = golden_model(GetParam());
  const auto sequence = random_sequences({24}, int32_t(model.graph().vocabulary))[0];
  const at::Tensor exact = logits_of(model, sequence);
  EXPECT_TRUE(model.exact_rollouts());
  for (const auto& [packing, most] : {std::pair{Packing::bf16, 1e-3}, {Packing::int8, 1e-2}}) {
    model.set_rollout_weights(packing);
    EXPECT_FALSE(model.exact_rollouts());
    model.pack_rollout_weights();
    const at::Tensor narrow = logits_of(model, sequence);
    EXPECT_TRUE(packing == Packing::bf16 || mean_kl(exact, narrow) > 0);  // some models' weights are bf16's already
    EXPECT_LE(mean_kl(exact, narrow), most) << int(packing);
  }
  model.set_rollout_weights(Packing::none);
  EXPECT_TRUE(at::equal(logits_of(model, sequence), exact));
  EXPECT_TRUE(model.exact_rollouts());
}

INSTANTIATE_TEST_SUITE_P(Golden, RolloutWeights_, testing::ValuesIn(golden_names("causal_lm")),
                         [](const auto& info) { return info.param; });

// A change of the weights is read once they are packed anew; training reads them as they are, at once.
TEST(RolloutWeights, AreOfTheTimeTheyWerePacked) {
  count_host_memory();
  const Ledger& ledger = Ledger::host();
  const int64_t before = ledger.now(MemoryTag::rollout_weights);
  Model model = golden_model("llama_gqa");
  model.set_rollout_weights(Packing::int8);
  EXPECT_THROW(logits_of(model, {5, 6, 7}), std::exception) << "they are not packed yet";
  model.pack_rollout_weights();
  const int64_t bytes = ledger.now(MemoryTag::rollout_weights) - before;
  EXPECT_GT(bytes, 0);
  const at::Tensor first = logits_of(model, {5, 6, 7});
  {
    const at::NoGradGuard no_grad;
    for (auto* unit : model.units()) at::Tensor(unit->flat()).mul_(1.5);
  }
  model.pack_rollout_weights();
  EXPECT_EQ(ledger.now(MemoryTag::rollout_weights) - before, bytes);
  EXPECT_FALSE(at::equal(logits_of(model, {5, 6, 7}), first));
  model.drop_rollout_weights();
  EXPECT_EQ(ledger.now(MemoryTag::rollout_weights), before);
}

}  // namespace
}  // namespace dsengine
