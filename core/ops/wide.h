// What is summed, and what is kept of a row (norms, log-sum-exps, log-probabilities), is float32 where values are
// bfloat16; else it has the values' own type.
//
//   r.rstd = wide_empty(x, {rows});
#pragma once
#include <ATen/core/Tensor.h>

namespace dsengine::ops {

inline at::ScalarType wide(at::ScalarType type) { return type == at::kBFloat16 ? at::kFloat : type; }
// On the tensor's device; the values are whatever memory holds.
inline at::Tensor wide_empty(const at::Tensor& like, at::IntArrayRef sizes) {
  return like.new_empty(sizes, like.options().dtype(wide(like.scalar_type())));
}
// The tensor itself where it is so already; an undefined one stays so.
inline at::Tensor widened(const at::Tensor& t) {
  return t.defined() && t.scalar_type() == at::kBFloat16 ? t.to(at::kFloat) : t;
}

}  // namespace dsengine::ops
