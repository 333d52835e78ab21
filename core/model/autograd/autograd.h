// The operations of the catalogue, differentiable: what is kept for a backward is said here, what is computed in ops/.
// Gradients of parameters are added straight into the parameter's .grad; a parameter without one is not trained.
//
//   at::Tensor y = autograd::linear(project, x, weight, bias);       // plain arithmetic where nothing wants a gradient
//
// The bound operation, and what is said to be borrowed, outlive the backward. Legend: N rows, T selected rows, B
// sequences.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/ops.h"

namespace dsengine::autograd {

// x [N, in], weight [out, in], bias [out] or undefined -> [N, out].
at::Tensor linear(const ops::Linear& op, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
// table [V, H], ids [N] int64 -> [N, H].
at::Tensor embedding(const ops::Embedding& op, const at::Tensor& table, const at::Tensor& ids);
at::Tensor rms_norm(const ops::RmsNorm& op, const at::Tensor& x, const at::Tensor& weight);
// weight and bias may be undefined.
at::Tensor layer_norm(const ops::LayerNorm& op, const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);
at::Tensor activation(const ops::Activate& op, const at::Tensor& x);
at::Tensor gated_activation(const ops::GatedActivate& op, const at::Tensor& gate_up);
// x [N, heads, D]; lengths [N] of the tokens' sequences.
at::Tensor rope(const ops::Rope& op, const at::Tensor& x, const at::Tensor& positions, const at::Tensor& lengths);
// Causal self-attention over ragged sequences: q [N, Hq, D], k and v [N, Hk, D] -> [N, Hq, D].
at::Tensor attention(const ops::Attention& op, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                     const Batch& batch);

struct LogProb {
  at::Tensor logp;     // [T]: log-softmax(hidden · headᵀ / temperature) at the target
  at::Tensor entropy;  // [T]: of that distribution, nats; undefined unless asked for
};
// hidden [T, H], head [V, H], targets [T] int64.
LogProb log_prob(const ops::LogProb& op, const at::Tensor& hidden, const at::Tensor& head, const at::Tensor& targets,
                 double temperature, bool entropy);

}  // namespace dsengine::autograd
