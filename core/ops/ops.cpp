#include "ops/ops.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/check.h"
#include "ops/reference/reference.h"

namespace dsengine::ops {

using at::Tensor;
using dse::Op;

namespace {

Tensor like(const Tensor& x, at::IntArrayRef sizes) { return at::empty(sizes, x.options()); }

}  // namespace

Linear::Linear(const Kernels& kernels, at::ScalarType dtype, int64_t in, int64_t out) {
  const Operation o{.op = Op::linear, .dtype = dtype, .in = in, .out = out};
  forward_ = kernels.bind(o);
  backward_ = kernels.bind(o.as(Op::linear_backward));
  weight_backward_ = kernels.bind(o.as(Op::linear_weight_backward));
}

Tensor Linear::forward(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& residual) const {
  if (!forward_) return reference::linear(x, w, b, residual);
  Tensor y = like(x, {x.size(0), w.size(0)});
  forward_.run({x.contiguous(), w, b, residual}, {y}, x.size(0));
  return y;
}

Tensor Linear::backward(const Tensor& dy, const Tensor& w) const {
  if (!backward_) return reference::linear_backward(dy, w);
  Tensor dx = like(dy, {dy.size(0), w.size(1)});
  backward_.run({dy, w}, {dx}, dy.size(0));
  return dx;
}

void Linear::weight_backward(const Tensor& dy, const Tensor& x, Tensor dw, Tensor db) const {
  if (!dw.defined() && !db.defined()) return;
  if (!weight_backward_) return reference::linear_weight_backward(dy, x, dw, db);
  weight_backward_.run({dy, x.contiguous()}, {dw, db}, dy.size(0));
}

Embedding::Embedding(const Kernels& kernels, at::ScalarType dtype, int64_t rows, int64_t width) {
  const Operation o{.op = Op::embedding, .dtype = dtype, .in = rows, .out = width};
  forward_ = kernels.bind(o);
  weight_backward_ = kernels.bind(o.as(Op::embedding_weight_backward));
}

Tensor Embedding::forward(const Tensor& table, const Tensor& ids) const {
  if (!forward_) return table.index_select(0, ids);
  Tensor y = like(table, {ids.size(0), table.size(1)});
  forward_.run({table, ids}, {y}, ids.size(0));
  return y;
}

void Embedding::weight_backward(const Tensor& dy, const Tensor& ids, Tensor dtable) const {
  if (!weight_backward_) return reference::embedding_weight_backward(dy, ids, dtable);
  weight_backward_.run({dy, ids}, {dtable}, dy.size(0));
}

RmsNorm::RmsNorm(const Kernels& kernels, at::ScalarType dtype, int64_t width, double eps, double shift)
    : eps_(eps), shift_(shift) {
  const Operation o{.op = Op::rms_norm, .dtype = dtype, .in = width, .out = width, .eps = eps, .shift = shift};
  forward_ = kernels.bind(o);
  backward_ = kernels.bind(o.as(Op::rms_norm_backward));
  weight_backward_ = kernels.bind(o.as(Op::rms_norm_weight_backward));
}

RmsNorm::Result RmsNorm::forward(const Tensor& x, const Tensor& w) const {
  if (!forward_) return reference::rms_norm(x, w, eps_, shift_);
  Result r{at::empty_like(x), like(x, {x.size(0)})};
  forward_.run({x.contiguous(), w}, {r.y, r.rstd}, x.size(0));
  return r;
}

Tensor RmsNorm::backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd) const {
  if (!backward_) return reference::rms_norm_backward(dy, x, w, rstd, shift_);
  Tensor dx = at::empty_like(x);
  backward_.run({dy, x.contiguous(), w, rstd}, {dx}, x.size(0));
  return dx;
}

void RmsNorm::weight_backward(const Tensor& dy, const Tensor& x, const Tensor& rstd, Tensor dw) const {
  if (!dw.defined()) return;
  if (!weight_backward_) return reference::rms_norm_weight_backward(dy, x, rstd, dw);
  weight_backward_.run({dy, x.contiguous(), rstd}, {dw}, x.size(0));
}

LayerNorm::LayerNorm(const Kernels& kernels, at::ScalarType dtype, int64_t width, double eps) : eps_(eps) {
  const Operation o{.op = Op::layer_norm, .dtype = dtype, .in = width, .out = width, .eps = eps};
  forward_ = kernels.bind(o);
  backward_ = kernels.bind(o.as(Op::layer_norm_backward));
  weight_backward_ = kernels.bind(o.as(Op::layer_norm_weight_backward));
}

LayerNorm::Result LayerNorm::forward(const Tensor& x, const Tensor& w, const Tensor& b) const {
  if (!forward_) return reference::layer_norm(x, w, b, eps_);
  Result r{at::empty_like(x), like(x, {x.size(0)}), like(x, {x.size(0)})};
  forward_.run({x.contiguous(), w, b}, {r.y, r.mean, r.rstd}, x.size(0));
  return r;
}

Tensor LayerNorm::backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& mean,
                           const Tensor& rstd) const {
  if (!backward_) return reference::layer_norm_backward(dy, x, w, mean, rstd);
  Tensor dx = at::empty_like(x);
  backward_.run({dy, x.contiguous(), w, mean, rstd}, {dx}, x.size(0));
  return dx;
}

void LayerNorm::weight_backward(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& rstd, Tensor dw,
                                Tensor db) const {
  if (!dw.defined() && !db.defined()) return;
  if (!weight_backward_) return reference::layer_norm_weight_backward(dy, x, mean, rstd, dw, db);
  weight_backward_.run({dy, x.contiguous(), mean, rstd}, {dw, db}, x.size(0));
}

Activate::Activate(const Kernels& kernels, at::ScalarType dtype, int64_t width, Activation activation)
    : activation_(activation) {
  const Operation o{.op = Op::activation, .dtype = dtype, .in = width, .out = width, .activation = activation};
  forward_ = kernels.bind(o);
  backward_ = kernels.bind(o.as(Op::activation_backward));
}

Tensor Activate::forward(const Tensor& x) const {
  if (!forward_) return reference::activation(x, activation_);
  Tensor y = like(x, x.sizes());
  forward_.run({x.contiguous()}, {y}, x.size(0));
  return y;
}

Tensor Activate::backward(const Tensor& dy, const Tensor& x) const {
  if (!backward_) return reference::activation_backward(dy, x, activation_);
  Tensor dx = like(x, x.sizes());
  backward_.run({dy, x.contiguous()}, {dx}, x.size(0));
  return dx;
}

GatedActivate::GatedActivate(const Kernels& kernels, at::ScalarType dtype, int64_t width, Activation activation)
    : width_(width), activate_(kernels, dtype, width, activation) {
  const Operation o{
      .op = Op::gated_activation, .dtype = dtype, .in = 2 * width, .out = width, .activation = activation};
  forward_ = kernels.bind(o);
  backward_ = kernels.bind(o.as(Op::gated_activation_backward));
}

Tensor GatedActivate::forward(const Tensor& x) const {
  if (!forward_) return activate_.forward(x.narrow(1, 0, width_)).mul_(x.narrow(1, width_, width_));
  Tensor y = like(x, {x.size(0), width_});
  forward_.run({x.contiguous()}, {y}, x.size(0));
  return y;
}

Tensor GatedActivate::backward(const Tensor& dy, const Tensor& x) const {
  Tensor dx = like(x, x.sizes());
  if (backward_) {
    backward_.run({dy, x.contiguous()}, {dx}, x.size(0));
    return dx;
  }
  const Tensor gate = x.narrow(1, 0, width_).contiguous(), up = x.narrow(1, width_, width_);
  dx.narrow(1, 0, width_).copy_(activate_.backward(dy * up, gate));
  dx.narrow(1, width_, width_).copy_(activate_.forward(gate).mul_(dy));
  return dx;
}

Rope::Rope(const Kernels& kernels, at::ScalarType dtype, int64_t heads, int64_t turned, int64_t head_dim,
           const RopeSpec& rope)
    : turned_(turned), rope_(rope), frequencies_(kernels.device().upload(rope.frequencies)) {
  if (!rope.long_frequencies.empty()) long_frequencies_ = kernels.device().upload(rope.long_frequencies);
  const Operation o{.op = Op::rope, .dtype = dtype, .heads = heads, .head_dim = head_dim, .rope = rope};
  forward_ = kernels.bind(o);
  backward_ = kernels.bind(o.as(Op::rope_backward));
}

Tensor Rope::forward(const Tensor& x, const Tensor& positions, const Tensor& lengths) const {
  if (!forward_) return reference::rope(x, turned_, positions, lengths, frequencies_, long_frequencies_, rope_, 1);
  Tensor y = like(x, x.sizes());
  forward_.run({x.contiguous(), positions, lengths}, {y}, x.size(0), {}, {turned_});
  return y;
}

Tensor Rope::backward(const Tensor& dy, const Tensor& positions, const Tensor& lengths) const {
  if (!backward_) return reference::rope(dy, turned_, positions, lengths, frequencies_, long_frequencies_, rope_, -1);
  Tensor dx = like(dy, dy.sizes());
  backward_.run({dy.contiguous(), positions, lengths}, {dx}, dy.size(0), {}, {turned_});
  return dx;
}

Attention::Attention(const Kernels& kernels, at::ScalarType dtype, int64_t heads, int64_t kv_heads, int64_t head_dim,
                     const AttentionScores& scores)
    : scores_(scores) {
  const Operation o{.op = Op::attention,
                    .dtype = dtype,
                    .heads = heads,
                    .kv_heads = kv_heads,
                    .head_dim = head_dim,
                    .scores = scores};
  forward_ = kernels.bind(o);
  backward_ = kernels.bind(o.as(Op::attention_backward));
  write_ = kernels.bind(o.as(Op::cache_write));
  cached_ = kernels.bind(o.as(Op::cached_attention));
}

Attention::Result Attention::forward(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch,
                                     bool want_lse) const {
  if (!forward_) return reference::attention(q, k, v, batch, scores_);
  Result r{like(q, q.sizes()), want_lse ? like(q, {q.size(0), q.size(1)}) : Tensor()};
  forward_.run({q, k, v, batch.starts}, {r.out, r.lse}, q.size(0), {}, {batch.longest});
  return r;
}

Attention::Gradients Attention::backward(const Tensor& d_out, const Tensor& q, const Tensor& k, const Tensor& v,
                                         const Result& result, const Batch& batch) const {
  if (!backward_) return reference::attention_backward(d_out, q, k, v, result, batch, scores_);
  Gradients g{like(q, q.sizes()), like(k, k.sizes()), like(v, v.sizes())};
  backward_.run({d_out, q, k, v, result.out, result.lse, batch.starts}, {g.dq, g.dk, g.dv}, q.size(0), {},
                {batch.longest});
  return g;
}

void Attention::write(const Tensor& k, const Tensor& v, const CachePlaces& places, Tensor& keys, Tensor& values) const {
  if (write_) return write_.run({k.contiguous(), v.contiguous(), places.rows}, {keys, values}, k.size(0));
  for (const auto& [from, to] : {std::pair{&k, &keys}, {&v, &values}})
    to->flatten(0, 1).index_copy_(0, places.rows, *from);
}

Tensor Attention::cached(const Tensor& q, const Tensor& keys, const Tensor& values, const CachePlaces& places,
                         const Batch& batch) const {
  if (!cached_) return reference::cached_attention(q, keys, values, places, batch, scores_);
  Tensor out = like(q, q.sizes());
  cached_.run({q, keys, values, places.blocks, batch.starts, places.key_counts}, {out}, q.size(0), {}, {batch.longest});
  return out;
}

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
  const Operation o{.op = Op::log_prob, .dtype = dtype, .in = width, .out = vocabulary, .softcap = softcap};
  forward_ = kernels.bind(o);
  backward_ = kernels.bind(o.as(Op::log_prob_backward));
}

Tensor LogProb::logits(const Tensor& x, const Tensor& head) const {
  Tensor z = linear_.forward(x, head);
  return softcap_ > 0 ? z.div_(softcap_).tanh_().mul_(softcap_) : z;
}

LogProb::Result LogProb::forward(const Tensor& x, const Tensor& head, const Tensor& targets, double temperature,
                                 bool want_entropy) const {
  const int64_t rows = x.size(0);
  Result r{like(x, {rows}), like(x, {rows}), want_entropy ? like(x, {rows}) : Tensor()};
  const auto store = [&](int64_t first, int64_t count, const reference::LogitSums& sums) {
    r.lse.narrow(0, first, count).copy_(sums.lse);
    r.logp.narrow(0, first, count).copy_(sums.target_logit - sums.lse);
    if (want_entropy) r.entropy.narrow(0, first, count).copy_(sums.lse - sums.mean_logit);
  };
  if (forward_) {
    reference::LogitSums sums{like(x, {rows}), like(x, {rows}), want_entropy ? like(x, {rows}) : Tensor()};
    forward_.run({x.contiguous(), head, targets}, {sums.lse, sums.target_logit, sums.mean_logit}, rows, {temperature});
    store(0, rows, sums);
    return r;
  }
  in_chunks(rows, head.size(0), [&](int64_t first, int64_t count) {
    const Tensor z = logits(x.narrow(0, first, count), head).div_(temperature);
    store(first, count, reference::logit_sums(z, targets.narrow(0, first, count), want_entropy));
  });
  return r;
}

Tensor LogProb::backward(const Tensor& d_logp, const Tensor& d_entropy, const Tensor& x, const Tensor& head,
                         const Tensor& targets, const Result& result, double temperature, Tensor dhead) const {
  Tensor dx = like(x, x.sizes());
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
    part(dx).copy_(linear_.backward(dz, head));
    linear_.weight_backward(dz, part(x), dhead, {});
  });
  return dx;
}

SumOfSquares::SumOfSquares(const Kernels& kernels)
    : kernel_(kernels.bind({.op = Op::sum_of_squares, .dtype = at::kFloat})) {}

double SumOfSquares::operator()(const Tensor& x) const {
  if (!kernel_) return reference::sum_of_squares(x);
  Tensor sum = at::empty({1}, x.options().dtype(at::kDouble));
  kernel_.run({x}, {sum}, x.numel());
  return sum.item<double>();
}

AdamWUpdate::AdamWUpdate(const Kernels& kernels) : kernel_(kernels.bind({.op = Op::adamw, .dtype = at::kFloat})) {}

void AdamWUpdate::operator()(const Tensor& gradient, Tensor w, Tensor m, Tensor v, const AdamWNumbers& n) const {
  if (!kernel_) return reference::adamw(gradient, w, m, v, n);
  kernel_.run({gradient}, {w, m, v}, w.numel(), {n.clip, n.beta1, n.beta2, n.step_size, n.keep, n.root2, n.epsilon},
              {n.decayed});
}

}  // namespace dsengine::ops
