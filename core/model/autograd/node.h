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

// The parameter's gradient buffer, or undefined where it is not trained. AccumulateGrad is bypassed: the caller adds in
// place and returns no gradient for the parameter.
inline Tensor grad_of(const Tensor& parameter) {
  return parameter.defined() && parameter.requires_grad() ? parameter.grad() : Tensor();
}

inline std::optional<Tensor> given(const Tensor& t) { return t.defined() ? std::optional(t) : std::nullopt; }

// A borrowed object, kept by address.
template <class T>
void keep(AutogradContext* ctx, const char* name, const T* object) {
  ctx->saved_data[name] = int64_t(reinterpret_cast<intptr_t>(object));
}
template <class T>
const T& kept(AutogradContext* ctx, const char* name) {
  return *reinterpret_cast<const T*>(ctx->saved_data[name].toInt());
}

}  // namespace dsengine::autograd
