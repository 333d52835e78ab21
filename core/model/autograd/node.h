// What the nodes of this folder share.
#pragma once
#include <ATen/ATen.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/autograd/autograd.h"

namespace dsengine::autograd {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

inline bool wants_grad(const Tensor& a) { return at::GradMode::is_enabled() && a.defined() && a.requires_grad(); }

// What a node keeps besides tensors: its operation, which it borrows, and the parameters that it reads.
template <class Op>
struct Kept : torch::CustomClassHolder {
  Kept(const Op* op_, const Parameter& weight_, const Parameter& bias_) : op(op_), weight(weight_), bias(bias_) {}
  const Op* op;
  Parameter weight, bias;
};
template <class Op>
void keep(AutogradContext* ctx, const Op* op, const Parameter& weight = {}, const Parameter& bias = {}) {
  ctx->saved_data["kept"] = at::IValue::make_capsule(c10::make_intrusive<Kept<Op>>(op, weight, bias));
}
template <class Op>
c10::intrusive_ptr<Kept<Op>> kept(AutogradContext* ctx) {
  return c10::static_intrusive_pointer_cast<Kept<Op>>(ctx->saved_data["kept"].toCapsule());
}

}  // namespace dsengine::autograd
