#include <ATen/ATen.h>

#include <algorithm>

#include "ops/ops.h"
#include "ops/reference/reference.h"
#include "ops/wide.h"

namespace dsengine::ops {

using at::Tensor;
using dse::Op;

namespace {

constexpr int64_t kChunkElements = 1 << 22;  // 16 MiB of float32 logits

// Calls f(first, count) for chunks of rows; a multiple of 8 but for the last, so that each meets BLAS alike.
template <class F>
void in_chunks(int64_t rows, int64_t vocabulary, const F& f) {
  const int64_t step = std::max<int64_t>(8, kChunkElements / vocabulary / 8 * 8);
  for (int64_t first = 0; first < rows; first += step) f(first, std::min(step, rows - first));
}

}  // namespace

LogProb::LogProb(const Kernels& kernels, at::ScalarType dtype, int64_t width, int64_t vocabulary, double softcap)
    : softcap_(softcap), linear_(kernels, dtype, width, vocabulary) {
  Operation o{.op = Op::log_prob, .dtype = dtype, .in = width, .out = vocabulary, .softcap = softcap};
  forward_ = kernels.bind(o);
  backward_ = kernels.bind(o.as(Op::log_prob_backward));
  o.dtype = wide(dtype);  // of logits
  sums_ = kernels.bind(o.as(Op::logit_sums));
  draw_ = kernels.bind(o.as(Op::draw));
  if (softcap > 0) softcap_kernel_ = kernels.bind(o.as(Op::softcap));
}

bool LogProb::row_invariant() const {
  const bool draws = !draw_ || (draw_.row_invariant() && draw_.same_library(sums_));
  const bool apart =
      linear_.row_invariant() && sums_.row_invariant() && draws && (softcap_ <= 0 || softcap_kernel_.row_invariant());
  if (!apart || !forward_) return apart;
  return forward_.row_invariant() && forward_.same_library(sums_) && linear_.same_library(forward_) &&
         (softcap_ <= 0 || forward_.same_library(softcap_kernel_));
}

Tensor LogProb::logits(const Tensor& x, const Tensor& head) const { return capped(linear_.forward_wide(x, head)); }

Tensor LogProb::capped(Tensor z) const {
  if (softcap_ <= 0) return z;
  if (!softcap_kernel_) return z.div_(softcap_).tanh_().mul_(softcap_);
  softcap_kernel_.run({}, {z}, z.size(0));
  return z;
}

LogitSums LogProb::sums(const Tensor& logits, const Tensor& temperatures, const Tensor& targets, bool want_mean) const {
  if (!sums_) return reference::logit_sums(logits / temperatures.unsqueeze(1), targets, want_mean);
  const auto column = [&] { return logits.new_empty({logits.size(0)}); };
  LogitSums r{column(), column(), want_mean ? column() : Tensor()};
  sums_.run({logits.contiguous(), temperatures, targets}, {r.lse, r.target_logit, r.mean_logit}, logits.size(0));
  return r;
}

Drawn LogProb::draw(const Tensor& logits, const Tensor& temperatures, const Tensor& draws) const {
  if (!draw_) {
    const Tensor tokens = reference::draw(logits / temperatures.unsqueeze(1), draws);
    return {tokens, sums(logits, temperatures, tokens, false)};
  }
  const auto column = [&] { return logits.new_empty({logits.size(0)}); };
  Drawn r{draws.new_empty({logits.size(0)}, at::kLong), {column(), column(), {}}};
  draw_.run({logits.contiguous(), temperatures, draws}, {r.tokens, r.sums.lse, r.sums.target_logit}, logits.size(0));
  return r;
}

LogProb::Result LogProb::forward(const Tensor& x, const Tensor& head, const Tensor& targets, double temperature,
                                 bool want_entropy) const {
  const int64_t rows = x.size(0);
  const auto column = [&] { return wide_empty(x, {rows}); };
  Result r{column(), column(), want_entropy ? column() : Tensor()};
  const auto store = [&](int64_t first, int64_t count, const LogitSums& sums) {
    r.lse.narrow(0, first, count).copy_(sums.lse);
    r.logp.narrow(0, first, count).copy_(sums.target_logit - sums.lse);
    if (want_entropy) r.entropy.narrow(0, first, count).copy_(sums.lse - sums.mean_logit);
  };
  if (forward_) {
    LogitSums sums{column(), column(), want_entropy ? column() : Tensor()};
    forward_.run({x.contiguous(), head, targets}, {sums.lse, sums.target_logit, sums.mean_logit}, rows, {temperature});
    store(0, rows, sums);
    return r;
  }
  in_chunks(rows, head.size(0), [&](int64_t first, int64_t count) {
    const Tensor z = logits(x.narrow(0, first, count), head);
    store(first, count,
          sums(z, at::full({count}, temperature, z.options()), targets.narrow(0, first, count), want_entropy));
  });
  return r;
}

Tensor LogProb::backward(const Tensor& d_logp, const Tensor& d_entropy, const Tensor& x, const Tensor& head,
                         const Tensor& targets, const Result& result, double temperature, Tensor dhead) const {
  Tensor dx = x.new_empty(x.sizes());
  if (backward_) {
    backward_.run({d_logp, d_entropy, x.contiguous(), head, targets, result.lse, result.entropy}, {dx, dhead},
                  x.size(0), {temperature});
    return dx;
  }
  in_chunks(x.size(0), head.size(0), [&](int64_t first, int64_t count) {
    const auto part = [&](const Tensor& t) { return t.narrow(0, first, count); };
    // d logp / dz = onehot - p;  d entropy / dz = -p (log p + entropy)
    Tensor log_p = logits(part(x), head);
    const Tensor slope = softcap_ > 0 ? 1 - (log_p / softcap_).square_() : Tensor();  // of tanh
    log_p.div_(temperature).sub_(part(result.lse).unsqueeze(1));
    Tensor p = log_p.exp();
    const Tensor weight = part(d_logp).neg().unsqueeze(1);
    Tensor dz = d_entropy.defined()
                    ? p.mul(weight - (log_p + part(result.entropy).unsqueeze(1)).mul_(part(d_entropy).unsqueeze(1)))
                    : p.mul_(weight);
    dz.scatter_add_(1, part(targets).unsqueeze(1), part(d_logp).unsqueeze(1));
    dz.div_(temperature);
    if (slope.defined()) dz.mul_(slope);
    dz = dz.to(x.scalar_type());
    part(dx).copy_(linear_.backward(dz, head));
    linear_.weight_backward(dz, part(x), dhead, {});
  });
  return dx;
}

}  // namespace dsengine::ops
