#include "model/log_prob.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "base/check.h"
#include "model/operations.h"

namespace dsengine {

using at::Tensor;
using torch::autograd::AutogradContext;

namespace {

constexpr int64_t kChunkElements = 1 << 22;  // 16 MiB of float32 logits

// A multiple of 8 rows, so that every chunk but the last meets BLAS alike.
int64_t chunk_rows(int64_t vocabulary) { return std::max<int64_t>(8, kChunkElements / vocabulary / 8 * 8); }

struct Chunks {
  Tensor logp, entropy, lse;
};

Chunks forward_chunks(const Kernels& kernels, const Tensor& hidden, const Tensor& head, const Tensor& targets,
                      double temperature, bool entropy, double softcap) {
  const int64_t rows = hidden.size(0), step = chunk_rows(head.size(0));
  Chunks c{at::empty({rows}, hidden.options()), entropy ? at::empty({rows}, hidden.options()) : Tensor(),
           at::empty({rows}, hidden.options())};
  for (int64_t first = 0; first < rows; first += step) {
    const int64_t n = std::min(step, rows - first);
    Tensor z = logits(kernels, hidden.narrow(0, first, n), head, softcap).div_(temperature);
    Tensor lse = at::logsumexp(z, 1);
    c.lse.narrow(0, first, n).copy_(lse);
    c.logp.narrow(0, first, n).copy_(z.gather(1, targets.narrow(0, first, n).unsqueeze(1)).squeeze(1) - lse);
    if (entropy) {  // lse - sum p z
      Tensor p = (z - lse.unsqueeze(1)).exp_();
      c.entropy.narrow(0, first, n).copy_(lse - (p.mul_(z)).sum(1));
    }
  }
  return c;
}

struct ChunkedLogProb : torch::autograd::Function<ChunkedLogProb> {
  static torch::autograd::variable_list forward(AutogradContext* ctx, const Kernels* kernels, const Tensor& hidden,
                                                const Tensor& head, const Tensor& targets, double temperature,
                                                bool entropy, double softcap) {
    Chunks c = forward_chunks(*kernels, hidden, head, targets, temperature, entropy, softcap);
    ctx->save_for_backward({hidden, head, targets, c.lse, c.entropy});
    ctx->saved_data["temperature"] = temperature;
    ctx->saved_data["softcap"] = softcap;
    ctx->saved_data["kernels"] = int64_t(reinterpret_cast<intptr_t>(kernels));
    return {c.logp, entropy ? c.entropy : at::zeros({0}, hidden.options())};
  }

  static torch::autograd::variable_list backward(AutogradContext* ctx, torch::autograd::variable_list grads) {
    at::NoGradGuard no_grad;
    const auto s = ctx->get_saved_variables();
    const Tensor &hidden = s[0], &head = s[1], &targets = s[2], &lse = s[3], &entropy = s[4];
    const auto& kernels = *reinterpret_cast<const Kernels*>(ctx->saved_data["kernels"].toInt());
    const double temperature = ctx->saved_data["temperature"].toDouble();
    const double softcap = ctx->saved_data["softcap"].toDouble();
    const Tensor g_logp = grads[0].defined() ? grads[0] : at::zeros_like(lse);
    const bool with_entropy = entropy.defined() && grads[1].defined();
    Tensor d_hidden = at::empty_like(hidden);
    Tensor d_head = head.requires_grad() ? head.grad() : Tensor();
    const int64_t rows = hidden.size(0), step = chunk_rows(head.size(0));
    for (int64_t first = 0; first < rows; first += step) {
      const int64_t n = std::min(step, rows - first);
      const auto part = [&](const Tensor& t) { return t.narrow(0, first, n); };
      // d logp / dz = onehot - p;  d entropy / dz = -p (log p + entropy)
      Tensor log_p = logits(kernels, part(hidden), head, softcap);
      const Tensor slope = softcap > 0 ? 1 - (log_p / softcap).square_() : Tensor();  // of tanh
      log_p.div_(temperature).sub_(part(lse).unsqueeze(1));
      Tensor p = log_p.exp();
      Tensor weight = part(g_logp).neg().unsqueeze(1);
      Tensor dz = with_entropy ? p.mul(weight - (log_p + part(entropy).unsqueeze(1)).mul_(part(grads[1]).unsqueeze(1)))
                               : p.mul_(weight);
      dz.scatter_add_(1, part(targets).unsqueeze(1), part(g_logp).unsqueeze(1));
      dz.div_(temperature);
      if (slope.defined()) dz.mul_(slope);
      at::Tensor out = part(d_hidden);
      at::mm_out(out, dz, head);
      if (d_head.defined()) d_head.addmm_(dz.t(), part(hidden));
    }
    return {Tensor(), d_hidden, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

LogProb log_prob(const Kernels& kernels, const Tensor& hidden, const Tensor& head, const Tensor& targets,
                 double temperature, bool entropy, double softcap) {
  DSE_CHECK(hidden.size(0) == targets.size(0), "{} rows, {} targets", hidden.size(0), targets.size(0));
  const bool train = at::GradMode::is_enabled() && (hidden.requires_grad() || head.requires_grad());
  if (!train) {
    Chunks c = forward_chunks(kernels, hidden, head, targets, temperature, entropy, softcap);
    return {c.logp, c.entropy};
  }
  auto out = ChunkedLogProb::apply(&kernels, hidden, head, targets, temperature, entropy, softcap);
  return {out[0], entropy ? out[1] : Tensor()};
}

Tensor logits(const Kernels& kernels, const Tensor& hidden, const Tensor& head, double softcap) {
  at::NoGradGuard no_grad;
  Tensor z = Operations(kernels).linear(hidden, head, {});
  return softcap > 0 ? z.div_(softcap).tanh_().mul_(softcap) : z;
}

}  // namespace dsengine
