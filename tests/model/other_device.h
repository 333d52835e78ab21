// What a golden model says and learns with some kernels, on the host: to compare devices by.
//
//   const auto here = told_by("llama_gqa", reference_kernels()), there = told_by("llama_gqa", far_kernels());
#pragma once
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include "comm/local.h"
#include "model/golden_models.h"
#include "param/adamw.h"

namespace dsengine {

// part: of the largest element.
inline void expect_close(const at::Tensor& a, const at::Tensor& b, const std::string& what, double part) {
  const at::Tensor x = on_host(a), y = on_host(b);
  ASSERT_EQ(x.sizes(), y.sizes()) << what;
  if (x.numel() == 0) return;
  const double scale = std::max(1e-3, x.abs().max().item<double>());
  EXPECT_LE((x - y).abs().max().item<double>(), part * scale) << what;
}

// Values, or log-probabilities and entropies, and all gradients, of an adapter and what is trained beside it.
inline std::vector<at::Tensor> told_by(const std::string& name, const Kernels& kernels,
                                       at::ScalarType dtype = at::kFloat) {
  const auto sequences = random_sequences({9, 1, 14}, 97);
  Model model = golden_model(name, golden_kind(name), dtype, kernels);
  model.add_adapter({.rank = 4, .alpha = 8, .targets = {"all"}}, 1);
  model.enable_training({"norms", "biases", "embeddings"});
  const Batch batch = pack(model.device(), {sequences.begin(), sequences.end()});
  std::vector<at::Tensor> all;
  const at::AutoGradMode grad(true);
  for (const bool recompute : {false, true}) {
    model.set_recompute(recompute);
    const at::Tensor h = model.hidden(batch);
    const at::Tensor rows = model.device().upload(std::vector<int64_t>{0, 3, 8, 9, 20});
    if (model.kind() == ModelKind::value) {
      all.push_back(model.values(h, rows));
      torch::autograd::backward({(all.back() * all.back()).sum()}, {});
    } else {
      const auto out = model.log_prob(h, rows, batch.tokens.index_select(0, rows), 0.7, true);
      all.push_back(out.logp), all.push_back(out.entropy);
      torch::autograd::backward({(out.logp * out.logp).sum() + out.entropy.sum()}, {});
    }
  }
  for (const auto* unit : model.units()) {
    std::vector<at::Tensor> parts;  // how they lie depends on the type
    for (size_t b = 0; b < unit->blocks().size(); ++b)
      for (size_t p = 0; unit->trained(b) && p < unit->blocks()[b].parts.size(); ++p)
        parts.push_back(unit->grad_part(b, p).flatten());
    if (!parts.empty()) all.push_back(at::cat(parts));
  }
  return all;
}

// The model after two updates. offload: all that can be lies in the host's memory, and is updated there.
inline Model trained_by(const std::string& name, const Kernels& kernels, bool offload) {
  const auto format = name.size() % 2 ? MomentFormat::bits8 : MomentFormat::fp32;
  const auto sequences = random_sequences({9, 1, 14}, 97);
  Model model = load_model(golden(name), built_plugins(), kernels,
                           {.kind = golden_kind(name), .streamed = {.offload = offload, .trained = offload}});
  model.enable_training({}, offload);
  AdamW optimizer(kernels, model.units(), {.epsilon = 1, .weight_decay = 0.1, .moments = format, .offload = offload});
  LocalCommunicator alone;
  const Batch batch = pack(model.device(), {sequences.begin(), sequences.end()});
  for (int step = 0; step < 2; ++step) {
    model.zero_grad();
    const at::AutoGradMode grad(true);
    torch::autograd::backward({model.hidden(batch).square().sum()}, {});
    optimizer.step(0.1, alone);  // with epsilon 1 an update is in proportion to its gradient
  }
  size_t streamed = 0;
  for (const auto* unit : model.units()) {
    EXPECT_EQ(unit->grad().is_cpu(), offload || !model.device().is_apart()) << unit->name();
    EXPECT_TRUE(!unit->streamed() || unit->flat().is_cpu()) << unit->name();
    streamed += unit->streamed();
  }
  EXPECT_EQ(streamed > 0, offload);
  return model;
}

// Their updates agree.
inline void expect_trained_alike(const std::string& name, const Model& here, const Model& there) {
  const Model before = golden_model(name, golden_kind(name), at::kFloat, reference_kernels());
  const auto a = here.units(), b = there.units(), from = before.units();
  for (size_t u = 0; u < a.size(); ++u)
    expect_close(a[u]->flat() - from[u]->flat(), on_host(b[u]->flat()) - from[u]->flat(), a[u]->name(), 1e-3);
}

}  // namespace dsengine
