// Weights that are kept elsewhere or narrower: the same model to the bit, with the memory of one section.
#include "model/streamed_weights.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>
#include <unistd.h>

#include <functional>

#include "comm/local.h"
#include "golden_models.h"
#include "memory/counting_allocator.h"
#include "model/hf/save.h"
#include "param/adamw.h"

namespace dsengine {
namespace {

constexpr StreamSettings kOffloaded{.offload = true}, kTrained{.offload = true, .trained = true},
    kNf4{.format = FrozenFormat::nf4}, kBoth{.format = FrozenFormat::nf4, .offload = true};

Model loaded(const std::string& name, StreamSettings streamed) {
  return load_model(golden(name), built_plugins(), built_kernels(), {.kind = golden_kind(name), .streamed = streamed});
}

// The whole model whose weights are those that NF4 has of another's.
Model rounded(const std::string& name) {
  const Model kept = loaded(name, kNf4);
  Model whole = loaded(name, {});
  std::vector<at::Tensor> values;
  kept.each_section(Model::Access::read, [&](const auto& tensors) {
    for (const auto& t : tensors) values.push_back(t.tensor.clone());
  });
  size_t next = 0, moved = 0;
  for (const auto& t : whole.tensors()) {
    moved += !at::equal(t.tensor, values[next]);
    at::Tensor(t.tensor).copy_(values[next++]);
  }
  EXPECT_GT(moved, 0u) << "nothing was rounded";
  return whole;
}

void adapt(Model& model) {
  model.add_adapter({.rank = 4, .alpha = 8, .targets = {"all"}}, 1);
  at::NoGradGuard no_grad;
  at::manual_seed(7);
  for (auto* unit : model.units())
    if (unit->name().starts_with("adapter.")) at::Tensor(unit->flat()).normal_(0, 0.2);
}

// Adds to the gradients of what is trained. between: forward and backward.
void add_gradients(
    const Model& model, const Batch& batch, const std::function<void()>& between = [] {}) {
  const at::AutoGradMode grad(true);
  const at::Tensor h = model.hidden(batch), rows = at::arange(h.size(0));
  between();
  const at::Tensor y =
      model.kind() == ModelKind::value ? model.values(h, rows) : model.log_prob(h, rows, batch.tokens, 1.0, false).logp;
  torch::autograd::backward({(y * y).sum()}, {});
}

class Streamed : public testing::TestWithParam<const char*> {
 protected:
  const std::string name = GetParam();
  const Batch batch = pack_all(random_sequences({9, 1, 14}, 97));

  std::vector<at::Tensor> gradients(Model& model) {
    model.enable_training(model.kind() == ModelKind::value ? std::vector<std::string>{}
                                                           : std::vector<std::string>{"norms", "biases", "embeddings"});
    std::vector<at::Tensor> all;
    for (const bool recompute : {false, true}) {
      model.set_recompute(recompute);
      model.zero_grad();
      add_gradients(model, batch, [&] {
        const at::NoGradGuard none;  // another forward before the backward, as a reference's is
        model.hidden(batch, false);
      });
      for (const auto* unit : model.units())
        if (unit->trained()) all.push_back(unit->grad().clone());
    }
    return all;
  }
  static void expect_away(const Model& model) {
    size_t away = 0;
    for (const auto* unit : model.units()) {
      if (unit->whole()) continue;
      EXPECT_FALSE(unit->brought().defined()) << unit->name();
      ++away;
    }
    EXPECT_GE(away, size_t(model.graph().layers));  // and a projection behind the last
  }
};

TEST_P(Streamed, ForwardsAndGradientsAreThoseOfTheWholeModel) {
  for (const auto settings : {kOffloaded, kNf4, kBoth}) {
    Model whole = settings.format == FrozenFormat::fp32 ? loaded(name, {}) : rounded(name);
    Model kept = loaded(name, settings);
    expect_away(kept);
    adapt(whole), adapt(kept);
    EXPECT_TRUE(same_bits(whole.hidden(batch), kept.hidden(batch)));
    EXPECT_TRUE(same_bits(whole.hidden(batch, false), kept.hidden(batch, false))) << "the base alone";
    const auto expected = gradients(whole), got = gradients(kept);
    ASSERT_EQ(expected.size(), got.size());
    for (size_t i = 0; i < got.size(); ++i) EXPECT_TRUE(same_bits(expected[i], got[i])) << i;
    const Traffic traffic = kept.take_traffic();
    EXPECT_EQ(traffic.bytes > 0, settings.offload);
    EXPECT_EQ(traffic.unpacked > 0, settings.format == FrozenFormat::nf4);
    expect_away(kept);
  }
}

TEST_P(Streamed, IsSavedAndCopiedAsTheWholeModelIs) {
  const std::filesystem::path folder =
      std::filesystem::path(testing::TempDir()) / fmt::format("dse_frozen_{}", getpid());
  const auto saved = [&](const Model& model) {
    std::filesystem::remove_all(folder);
    std::filesystem::create_directories(folder);
    save_model(model, folder, {});
    Model again = load_model(folder, built_plugins(), built_kernels(), {.kind = model.kind()});
    std::filesystem::remove_all(folder);
    return again;
  };
  for (const auto settings : {kOffloaded, kNf4}) {
    Model whole = settings.offload ? loaded(name, {}) : rounded(name), kept = loaded(name, settings);
    adapt(whole), adapt(kept);
    EXPECT_TRUE(kept.finite());
    const Model merged = saved(kept), expected = saved(whole);
    const auto a = merged.tensors(), b = expected.tensors();
    for (size_t i = 0; i < a.size(); ++i) EXPECT_TRUE(at::equal(a[i].tensor, b[i].tensor)) << a[i].spec->tensor;
    const Model copy = kept.clone(kept.kind());
    EXPECT_TRUE(same_bits(copy.hidden(batch), kept.hidden(batch)));
  }
}

// Copies share what is kept; one that is written has its own from then on.
TEST_P(Streamed, ACopyThatIsWrittenLeavesTheOther) {
  const Model kept = loaded(name, kNf4);
  const at::Tensor before = kept.hidden(batch);
  const Model copy = kept.clone(kept.kind());
  copy.each_section(Model::Access::write, [](const auto& tensors) {
    for (const auto& t : tensors) at::Tensor(t.tensor).mul_(2);
  });
  EXPECT_FALSE(same_bits(copy.hidden(batch), before));
  EXPECT_TRUE(same_bits(kept.hidden(batch), before));
}

// Gradients that lie elsewhere: two backwards add to them, in the order of those that never leave.
TEST_P(Streamed, OffloadedGradientsAreThoseThatStay) {
  Model here = loaded(name, {}), there = loaded(name, {});
  here.enable_training();
  there.enable_training({}, true);
  for (auto* model : {&here, &there})
    for (const bool recompute : {false, true}) {
      model->set_recompute(recompute);
      add_gradients(*model, batch);
    }
  const auto a = here.units(), b = there.units();
  for (size_t u = 0; u < a.size(); ++u) {
    EXPECT_GT(a[u]->grad().abs().max().item<float>(), 0.0f) << a[u]->name();
    EXPECT_TRUE(same_bits(a[u]->grad(), b[u]->grad())) << a[u]->name();
    EXPECT_TRUE(b[u]->grad_block(0).is_meta()) << "it is away";
  }
  there.zero_grad();
  EXPECT_EQ(b[0]->grad().abs().max().item<float>(), 0.0f);
}

// Layers that come and go while they are trained: weights after some updates, and what is saved of them.
TEST_P(Streamed, TrainedLayersThatComeAndGoAreThoseThatStay) {
  LocalCommunicator alone;
  const auto trained = [&](StreamSettings settings) {
    Model model = loaded(name, settings);
    const bool offload = settings.offload;
    model.enable_training({}, offload);
    AdamW optimizer(built_kernels(), model.units(), {.weight_decay = 0.1, .offload = offload});
    for (const bool recompute : {false, true, false}) {
      model.set_recompute(recompute);
      model.zero_grad();
      add_gradients(model, batch);
      optimizer.step(1e-3, alone);
    }
    return model;
  };
  const Model before = loaded(name, {}), here = trained({}), there = trained(kTrained);
  expect_away(there);
  const auto a = here.units(), b = there.units(), from = before.units();
  ASSERT_EQ(a.size(), b.size());
  size_t away = 0;
  for (size_t u = 0; u < a.size(); ++u) {
    EXPECT_FALSE(same_bits(a[u]->flat(), from[u]->flat())) << a[u]->name() << " was not trained";
    EXPECT_TRUE(same_bits(a[u]->flat(), b[u]->flat())) << a[u]->name();
    away += b[u]->streamed() && b[u]->block(0).is_meta();
  }
  EXPECT_GE(away, size_t(here.graph().layers));
  EXPECT_TRUE(there.finite());
  const Model copy = there.clone(there.kind());
  EXPECT_TRUE(same_bits(copy.hidden(batch), here.hidden(batch)));
  expect_away(copy);
  copy.each_section(Model::Access::write, [](const auto& tensors) {
    for (const auto& t : tensors) at::Tensor(t.tensor).mul_(2);
  });
  EXPECT_TRUE(same_bits(there.hidden(batch), here.hidden(batch))) << "a copy that is written leaves the other";
}

// What a backward that threw has brought is not what the next forward reads.
TEST_P(Streamed, AnErrorInABackwardLeavesNothingBehind) {
  struct Fails : SectionHooks {
    void before_backward(size_t section) override {
      if (section == 1) throw std::runtime_error("enough");
    }
  } fails;
  Model here = loaded(name, {}), there = loaded(name, kTrained);
  there.enable_training({}, true);
  there.set_hooks(&fails);
  {
    const at::AutoGradMode grad(true);
    EXPECT_ANY_THROW(torch::autograd::backward({there.hidden(batch).sum()}, {}));
  }
  there.set_hooks(nullptr);
  for (auto* model : {&here, &there})
    for (auto* unit : model->units()) at::Tensor(unit->flat()).mul_(1.5);
  const at::NoGradGuard none;
  EXPECT_TRUE(same_bits(here.hidden(batch), there.hidden(batch)));
  expect_away(there);
}

INSTANTIATE_TEST_SUITE_P(Models, Streamed,
                         testing::Values("llama_gqa", "opt_prenorm", "opt_350m", "gpt2", "qwen3", "gemma2",
                                         "llama_reward"),
                         [](const auto& model) { return std::string(model.param); });

// Beside the vectors, the embeddings and the head: codes.
TEST(StreamedWeights, TakeTheirFormatsMemory) {
  count_host_memory();
  const auto now = [] { return Ledger::host().now(MemoryTag::weights); };
  const int64_t nothing = now(), elsewhere = Ledger::offloaded().now();
  int64_t linears = 0, codes = 0;
  {
    const Model whole = loaded("llama_gqa", {});
    for (const auto& t : whole.tensors())
      if (t.section > 0 && t.spec->shape.size() == 2 && t.section <= size_t(whole.graph().layers)) {
        linears += t.tensor.numel();
        codes += t.spec->shape[0] * ((t.spec->shape[1] + 1) / 2 + 4 * ((t.spec->shape[1] + 63) / 64));
      }
    const int64_t all = now() - nothing;
    const int64_t before = now();
    {
      const Model kept = loaded("llama_gqa", kOffloaded);
      EXPECT_NEAR(double(now() - before), double(all - 4 * linears), 4096);
      EXPECT_NEAR(double(Ledger::offloaded().now() - elsewhere), double(4 * linears), 4096);
    }
    EXPECT_EQ(Ledger::offloaded().now(), elsewhere);
    const Model kept = loaded("llama_gqa", kNf4);
    EXPECT_NEAR(double(now() - before), double(all - 4 * linears + codes), 4096);
  }
  EXPECT_EQ(now(), nothing);
}

}  // namespace
}  // namespace dsengine
