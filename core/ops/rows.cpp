#include "ops/ops.h"

#include <ATen/ATen.h>

#include "ops/reference/reference.h"
#include "ops/wide.h"

namespace dsengine::ops {

using at::Tensor;
using dse::Op;

bool Linear::row_invariant() const { return forward_.row_invariant(); }
bool Embedding::row_invariant() const { return !forward_ || forward_.row_invariant(); }
bool RmsNorm::row_invariant() const { return forward_.row_invariant(); }
bool LayerNorm::row_invariant() const { return forward_.row_invariant(); }
bool Activate::row_invariant() const { return forward_.row_invariant(); }
bool GatedActivate::row_invariant() const { return forward_ ? forward_.row_invariant() : activate_.row_invariant(); }
bool Rope::row_invariant() const { return forward_.row_invariant(); }

Linear::Linear(const Kernels& kernels, at::ScalarType dtype, int64_t in, int64_t out) {
  const Operation o{.op = Op::linear, .dtype = dtype, .in = in, .out = out};
  forward_ = kernels.bind(o);
  backward_ = kernels.bind(o.as(Op::linear_backward));
  weight_backward_ = kernels.bind(o.as(Op::linear_weight_backward));
}

Tensor Linear::forward(const Tensor& x, const Tensor& w, const Tensor& b, const Tensor& residual) const {
  if (!forward_) return reference::linear(x, w, b, residual);
  Tensor y = x.new_empty({x.size(0), w.size(0)});
  forward_.run({x.contiguous(), w, b, residual}, {y}, x.size(0));
  return y;
}

Tensor Linear::forward_wide(const Tensor& x, const Tensor& w) const {
  if (!forward_) return reference::linear(widened(x), widened(w), {}, {});
  Tensor y = wide_empty(x, {x.size(0), w.size(0)});
  forward_.run({x.contiguous(), w}, {y}, x.size(0));
  return y;
}

Tensor Linear::backward(const Tensor& dy, const Tensor& w) const {
  if (!backward_) return reference::linear_backward(dy, w);
  Tensor dx = dy.new_empty({dy.size(0), w.size(1)});
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
  Tensor y = table.new_empty({ids.size(0), table.size(1)});
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

RmsNormed RmsNorm::forward(const Tensor& x, const Tensor& w) const {
  if (!forward_) return reference::rms_norm(x, w, eps_, shift_);
  RmsNormed r{x.new_empty(x.sizes()), wide_empty(x, {x.size(0)})};
  forward_.run({x.contiguous(), w}, {r.y, r.rstd}, x.size(0));
  return r;
}

Tensor RmsNorm::backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd) const {
  if (!backward_) return reference::rms_norm_backward(dy, x, w, rstd, shift_);
  Tensor dx = x.new_empty(x.sizes());
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

LayerNormed LayerNorm::forward(const Tensor& x, const Tensor& w, const Tensor& b) const {
  if (!forward_) return reference::layer_norm(x, w, b, eps_);
  LayerNormed r{x.new_empty(x.sizes()), wide_empty(x, {x.size(0)}), wide_empty(x, {x.size(0)})};
  forward_.run({x.contiguous(), w, b}, {r.y, r.mean, r.rstd}, x.size(0));
  return r;
}

Tensor LayerNorm::backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& mean,
                           const Tensor& rstd) const {
  if (!backward_) return reference::layer_norm_backward(dy, x, w, mean, rstd);
  Tensor dx = x.new_empty(x.sizes());
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
  Tensor y = x.new_empty(x.sizes());
  forward_.run({x.contiguous()}, {y}, x.size(0));
  return y;
}

Tensor Activate::backward(const Tensor& dy, const Tensor& x) const {
  if (!backward_) return reference::activation_backward(dy, x, activation_);
  Tensor dx = x.new_empty(x.sizes());
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
  Tensor y = x.new_empty({x.size(0), width_});
  forward_.run({x.contiguous()}, {y}, x.size(0));
  return y;
}

Tensor GatedActivate::backward(const Tensor& dy, const Tensor& x) const {
  Tensor dx = x.new_empty(x.sizes());
  if (backward_) {
    backward_.run({dy, x.contiguous()}, {dx}, x.size(0));
    return dx;
  }
  const Tensor gate = x.narrow(1, 0, width_).contiguous(), up = x.narrow(1, width_, width_);
  dx.narrow(1, 0, width_).copy_(activate_.backward(dy * up, gate));
  dx.narrow(1, width_, width_).copy_(activate_.forward(gate).mul_(dy));
  return dx;
}

LinearActivate::LinearActivate(const Kernels& kernels, at::ScalarType dtype, int64_t in, int64_t width,
                               Activation activation, bool gated)
    : width_(width),
      kernel_(kernels.bind_whole({.op = gated ? Op::linear_gated_activation : Op::linear_activation,
                                  .dtype = dtype,
                                  .in = in,
                                  .out = width,
                                  .activation = activation})) {}

Tensor LinearActivate::forward(const Tensor& x, const Tensor& w, const Tensor& b) const {
  Tensor y = x.new_empty({x.size(0), width_});
  kernel_.run({x.contiguous(), w, b}, {y}, x.size(0));
  return y;
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
  Tensor y = x.new_empty(x.sizes());
  forward_.run({x.contiguous(), positions, lengths}, {y}, x.size(0), {}, {turned_});
  return y;
}

Tensor Rope::backward(const Tensor& dy, const Tensor& positions, const Tensor& lengths) const {
  if (!backward_) return reference::rope(dy, turned_, positions, lengths, frequencies_, long_frequencies_, rope_, -1);
  Tensor dx = dy.new_empty(dy.sizes());
  backward_.run({dy.contiguous(), positions, lengths}, {dx}, dy.size(0), {}, {turned_});
  return dx;
}

}  // namespace dsengine::ops
