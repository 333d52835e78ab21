// Gradients of declared models and of the engine's operations, in float64: against central differences, and
// against LibTorch's own autograd of the plain formula. Recomputing layers changes no bit.
#include "golden_models.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <map>
#include <optional>

#include "model/autograd/autograd.h"
#include "model/gradient_check.h"

namespace dsengine {
namespace {

using at::Tensor;

// What a training step asks of a model, as one number: weighted log-probs and entropies, or values, of ragged
// sequences (one of a single token that predicts nothing).
struct Objective {
  Batch batch;
  Tensor rows, targets, weight, entropy_weight;

  explicit Objective(int64_t vocabulary) {
    batch = pack_all(random_sequences({5, 1, 9, 2}, int32_t(vocabulary)));
    std::vector<int64_t> rows_, targets_;
    for (size_t b = 0; b + 1 < batch.offsets.size(); ++b)
      for (int64_t i = batch.offsets[b]; i + 1 < batch.offsets[b + 1]; ++i) {
        rows_.push_back(i);
        targets_.push_back(batch.tokens[i + 1].item<int64_t>());
      }
    rows = at::tensor(rows_), targets = at::tensor(targets_);
    const auto options = at::TensorOptions().dtype(at::kDouble);
    weight = at::linspace(-1, 2, rows.numel(), options), entropy_weight = at::linspace(1, -0.5, rows.numel(), options);
  }
  Tensor of(const Model& model) const {
    const Tensor hidden = model.hidden(batch);
    if (model.kind() == ModelKind::value) return (model.values(hidden, rows) * weight).sum();
    const auto [logp, entropy] = model.log_prob(hidden, rows, targets, 0.7, true);
    return (logp * weight).sum() + (entropy * entropy_weight).sum();
  }
};

class ModelGradients : public testing::TestWithParam<std::string> {
 protected:
  const ModelKind kind = golden_kind(GetParam());
  Model model = golden_model(GetParam(), kind, at::kDouble);
};

class AdapterGradients : public ModelGradients {};

// See compare_gradients: each tensor moved along its own random direction by 2e-6.
TEST_P(ModelGradients, AreCentralDifferences) {
  std::map<std::string, double> largest;  // over the parameters that share a tensor
  for (const auto& g : compare_gradients(model)) {
    EXPECT_LE(g.deviation(), 1e-6) << g.tensor << ": " << g.exact << ", " << g.numeric;
    largest[g.tensor] = std::max(largest[g.tensor], g.largest);
  }
  // OPT's k bias shifts all scores of a query alike: its true gradient is zero.
  for (const auto& [tensor, value] : largest)
    if (tensor.find("k_proj.bias") == std::string::npos) {
      EXPECT_GT(value, 1e-6) << tensor << " gets no gradient";
    }
}

// The pairs of an adapter, each block moved along a random direction; and nothing of the base has a gradient but what
// was asked for.
TEST_P(AdapterGradients, AreCentralDifferences) {
  const auto all = model.tensors();
  const bool fused = std::any_of(all.begin(), all.end(), [](const auto& t) { return t.spec->first_row >= 0; });
  const std::vector<std::string> some{"q", "v", "up", "down", "o"};
  model.add_adapter({.rank = 4, .alpha = 6, .targets = fused ? std::vector<std::string>{"all"} : some}, 1);
  at::NoGradGuard no_grad;
  at::manual_seed(3);
  for (auto* unit : model.units())
    if (unit->name().starts_with("adapter.")) at::Tensor(unit->flat()).normal_(0, 0.1);
  model.enable_training({"norms"});
  model.zero_grad();
  const Objective objective(model.graph().vocabulary);
  {
    at::AutoGradMode grad(true);
    torch::autograd::backward({objective.of(model)}, {});
  }
  constexpr double step = 1e-5;
  int64_t compared = 0;
  const auto compare = [&](ParamStorage& unit, size_t b, size_t p) {
    const std::string& name = unit.blocks()[b].parts[p].tensor;
    const bool pair = name.find(".lora_") != name.npos,
               norm = name.find("norm") != name.npos || name.find("ln_") != name.npos;
    const Tensor gradient = unit.grad_part(b, p);
    EXPECT_EQ(gradient.defined(), pair || norm || name == "score.weight") << name;
    if (!gradient.defined()) return;
    Tensor target = unit.part(b, p);
    const Tensor before = target.clone(), direction = at::randn(target.sizes(), target.options());
    target.copy_(before + step * direction);
    const double up = objective.of(model).item<double>();
    target.copy_(before - step * direction);
    const double down = objective.of(model).item<double>();
    target.copy_(before);
    const double exact = (gradient * direction).sum().item<double>(), numeric = (up - down) / (2 * step);
    EXPECT_LE(std::abs(exact - numeric), 1e-6 * std::max(1.0, std::abs(exact))) << name;
    if (pair) {
      EXPECT_GT(gradient.abs().max().item<double>(), 1e-6) << name << " gets no gradient";
    }
    ++compared;
  };
  for (auto* unit : model.units())
    for (size_t b = 0; b < unit->blocks().size(); ++b)
      for (size_t p = 0; p < unit->blocks()[b].parts.size(); ++p) compare(*unit, b, p);
  EXPECT_GT(compared, 10);
}

using Gradients = std::vector<Tensor>;

// A copy of what each unit has.
Gradients gradients_of(const Model& model) {
  Gradients all;
  for (const auto* unit : model.units()) all.push_back(unit->grad().clone());
  return all;
}

void expect_same_bits(const std::vector<Gradients>& all) {
  for (size_t i = 1; i < all.size(); ++i)
    for (size_t u = 0; u < all[0].size(); ++u) EXPECT_TRUE(same_bits(all[0][u], all[i][u])) << u;
}

TEST_P(ModelGradients, RecomputedLayersGiveTheSameBits) {
  const Objective objective(model.graph().vocabulary);
  model.enable_training();
  std::vector<Gradients> gradients;
  std::vector<double> values;
  for (const bool recompute : {false, true}) {
    model.set_recompute(recompute);
    model.zero_grad();
    at::AutoGradMode grad(true);
    const Tensor f = objective.of(model);
    values.push_back(f.item<double>());
    torch::autograd::backward({f}, {});
    gradients.push_back(gradients_of(model));
  }
  EXPECT_EQ(values[0], values[1]);
  expect_same_bits(gradients);
}

// Weights are there while their section runs, forward or backward, and are no numbers at any other time.
class Poison : public SectionHooks {
 public:
  explicit Poison(Weights& weights) : weights_(weights) {
    for (auto* unit : weights_.units()) put_away(*unit);
  }
  void before_forward(size_t section) override { fetch(section, "forward"); }
  void after_forward(size_t section) override { leave(section, "forward"); }
  void before_backward(size_t section) override { fetch(section, "backward"); }
  void after_backward(size_t section) override { leave(section, "backward"); }
  void fetch_all() {
    for (auto& [unit, flat] : away_) unit->flat().copy_(flat);
  }
  std::vector<std::string> calls;

 private:
  void put_away(ParamStorage& unit) {
    away_[&unit] = unit.flat().clone();
    at::Tensor(unit.flat()).fill_(NAN);
  }
  void fetch(size_t section, const char* pass) {
    calls.push_back(fmt::format("{} {}", pass, section));
    at::NoGradGuard no_grad;
    for (auto* unit : weights_.of_section(section)) unit->flat().copy_(away_.at(unit));
  }
  void leave(size_t section, const char* pass) {
    calls.push_back(fmt::format("{} {} done", pass, section));
    at::NoGradGuard no_grad;
    for (auto* unit : weights_.of_section(section)) at::Tensor(unit->flat()).fill_(NAN);
  }
  Weights& weights_;
  std::map<ParamStorage*, Tensor> away_;
};

TEST_P(ModelGradients, ASectionsWeightsAreReadBetweenItsHooks) {
  const Objective objective(model.graph().vocabulary);
  model.enable_training();
  std::vector<Gradients> gradients;
  for (const bool recompute : {false, true})
    for (const bool poisoned : {false, true}) {
      model.set_recompute(recompute);
      model.zero_grad();
      std::optional<Poison> poison;
      if (poisoned) model.set_hooks(&poison.emplace(model.weights()));
      at::AutoGradMode grad(true);
      torch::autograd::backward({objective.of(model)}, {});
      gradients.push_back(gradients_of(model));
      model.set_hooks(nullptr);
      if (!poisoned) continue;
      poison->fetch_all();
      // Forward from the first section to the head, each left before the next; backward the other way.
      std::vector<std::string> expected;
      const int sections = int(model.graph().sections.size());
      for (int s = 0; s <= sections; ++s)
        expected.push_back(fmt::format("forward {}", s)), expected.push_back(fmt::format("forward {} done", s));
      for (int s = sections; s >= 0; --s)
        expected.push_back(fmt::format("backward {}", s)), expected.push_back(fmt::format("backward {} done", s));
      EXPECT_EQ(poison->calls, expected);
    }
  expect_same_bits(gradients);
}

// A node keeps no weight: between forward and backward the buffers are moved, and what stood there is no number any
// more.
TEST_P(ModelGradients, TheBackwardReadsTheStorage) {
  const Objective objective(model.graph().vocabulary);
  model.enable_training();
  std::vector<Gradients> gradients;
  for (const bool moves : {false, true})
    for (const bool recompute : {false, true}) {
      model.set_recompute(recompute);
      model.zero_grad();
      at::AutoGradMode grad(true);
      const Tensor f = objective.of(model);
      for (auto* unit : model.units()) {
        if (!moves) continue;
        const Tensor before = unit->flat();
        unit->place(before.clone());
        before.fill_(NAN);
      }
      torch::autograd::backward({f}, {});
      gradients.push_back(gradients_of(model));
    }
  expect_same_bits(gradients);
}

INSTANTIATE_TEST_SUITE_P(Golden, ModelGradients, testing::ValuesIn(golden_names("causal_lm") + golden_names("reward")),
                         [](const auto& info) { return info.param; });
INSTANTIATE_TEST_SUITE_P(Golden, AdapterGradients,
                         testing::ValuesIn(golden_names("causal_lm") + golden_names("reward")),
                         [](const auto& info) { return info.param; });

// Chunks of the head's log-softmax against log_softmax of all logits at once, with LibTorch's autograd. The
// vocabulary makes a chunk of 8 rows, so that 21 rows are three chunks, the last of them short.
class LogProbSoftcap : public testing::TestWithParam<double> {};

TEST_P(LogProbSoftcap, ChunksAreThePlainFormula) {
  const double softcap = GetParam();  // of about the logits' spread
  at::manual_seed(5);
  const int64_t vocabulary = 1 << 19, width = 6, count = 21;
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const Tensor hidden = at::randn({count, width}, options), head = at::randn({vocabulary, width}, options);
  const Tensor targets = at::randint(vocabulary, {count}, at::kLong);
  const Tensor g_logp = at::randn({count}, options), g_entropy = at::randn({count}, options);
  const double temperature = 1.3;

  at::AutoGradMode grad(true);
  const Tensor h1 = hidden.clone().requires_grad_(true), w1 = head.clone().requires_grad_(true);
  const Tensor z = h1.mm(w1.t());
  const Tensor log_p = at::log_softmax((softcap > 0 ? softcap * (z / softcap).tanh() : z) / temperature, 1);
  const Tensor logp = log_p.gather(1, targets.unsqueeze(1)).squeeze(1), entropy = -(log_p.exp() * log_p).sum(1);
  torch::autograd::backward({logp, entropy}, {g_logp, g_entropy});

  Tensor h2 = hidden.clone().requires_grad_(true);
  ParamStorage w2("head", {{{{"head", {vocabulary, width}}}}}, Device::host(), at::kDouble);
  at::Tensor(w2.block(0)).copy_(head);
  w2.train();
  const ops::LogProb op(built_kernels(), at::kDouble, width, vocabulary, softcap);
  const auto ours = autograd::log_prob(op, h2, Parameter(w2, 0), targets, temperature, true);
  torch::autograd::backward({ours.logp, ours.entropy}, {g_logp, g_entropy});

  EXPECT_TRUE(at::allclose(ours.logp, logp, 1e-10, 1e-10));
  EXPECT_TRUE(at::allclose(ours.entropy, entropy, 1e-10, 1e-10));
  EXPECT_TRUE(at::allclose(h2.grad(), h1.grad(), 1e-9, 1e-10));
  EXPECT_TRUE(at::allclose(w2.grad_block(0), w1.grad(), 1e-9, 1e-10));
}

INSTANTIATE_TEST_SUITE_P(Values, LogProbSoftcap, testing::Values(0.0, 3.0));

// Ragged attention against softmax(q kᵀ) v of each sequence by itself, with LibTorch's autograd.
class RaggedScores : public testing::TestWithParam<AttentionScores> {};

TEST_P(RaggedScores, AreThePlainFormulaOnEachSequence) {
  const auto [scale, window, softcap] = GetParam();
  at::manual_seed(7);
  const std::vector<int64_t> offsets{0, 1, 1, 7, 20};  // the second sequence is empty
  const int64_t tokens = 20, heads = 6, kv_heads = 2, width = 5;
  const auto options = at::TensorOptions().dtype(at::kDouble);
  const Tensor q = at::randn({tokens, heads, width}, options), k = at::randn({tokens, kv_heads, width}, options);
  const Tensor v = at::randn({tokens, kv_heads, width}, options), d_out = at::randn({tokens, heads, width}, options);

  at::AutoGradMode grad(true);
  std::vector<Tensor> plain, ours;
  for (auto* list : {&plain, &ours})
    for (const Tensor& t : {q, k, v}) list->push_back(t.clone().requires_grad_(true));
  std::vector<Tensor> outputs;
  for (size_t b = 0; b + 1 < offsets.size(); ++b) {
    const int64_t first = offsets[b], n = offsets[b + 1] - first;
    const auto part = [&](const Tensor& t, int64_t repeat) {  // [heads, n, width]
      return t.narrow(0, first, n).transpose(0, 1).repeat_interleave(repeat, 0);
    };
    const int64_t group = heads / kv_heads;
    Tensor s = part(plain[0], 1).matmul(part(plain[1], group).transpose(1, 2)) * scale;
    if (softcap > 0) s = softcap * (s / softcap).tanh();
    s = s.masked_fill(at::ones({n, n}, at::kBool).triu(1), -INFINITY);
    if (window > 0) s = s.masked_fill(at::ones({n, n}, at::kBool).tril(-window), -INFINITY);
    outputs.push_back(at::softmax(s, 2).matmul(part(plain[2], group)).transpose(0, 1));
  }
  const Tensor expected = at::cat(outputs, 0);
  torch::autograd::backward({expected}, {d_out});

  const ops::Attention op(built_kernels(), at::kDouble, heads, kv_heads, width, GetParam());
  const Batch batch = pack_all({std::vector<int32_t>(1), {}, std::vector<int32_t>(6), std::vector<int32_t>(13)});
  ASSERT_EQ(batch.offsets, offsets);
  const Tensor out = autograd::attention(op, ours[0], ours[1], ours[2], batch);
  torch::autograd::backward({out}, {d_out});
  EXPECT_TRUE(at::allclose(out, expected, 1e-12, 1e-12));
  for (int i = 0; i < 3; ++i) EXPECT_TRUE(at::allclose(ours[i].grad(), plain[i].grad(), 1e-11, 1e-12)) << "qkv"[i];
}

INSTANTIATE_TEST_SUITE_P(Values, RaggedScores,
                         testing::Values(AttentionScores{0.37, 0, 0}, AttentionScores{0.37, 4, 0},
                                         AttentionScores{0.9, 0, 1.5}, AttentionScores{0.9, 1, 1.5},
                                         AttentionScores{0.9, 6, 1.5}));

// Frozen models (reference, reward) and tensors without grad build no graph at all.
TEST(Model, WithoutTrainingNothingIsKeptForABackward) {
  const Model model = golden_model("llama_gqa");
  at::AutoGradMode grad(true);
  EXPECT_FALSE(model.hidden(pack_all(random_sequences({4}, 90))).requires_grad());
}

}  // namespace
}  // namespace dsengine
