// The operations of the catalogue, differentiable: what is kept for a backward is said here, what is computed in ops/.
// A parameter is kept as a Parameter, never as a tensor: its value and its gradient are asked for in the backward, and
// gradients are added straight into its storage.
//
//   at::Tensor y = autograd::linear(project, x, weight, bias);       // plain arithmetic where x wants no gradient
//
// A node is made where the input wants a gradient; else the parameters get none either. A model gives its embeddings an
// anchor for that. Bound operations and storages outlive the backward. Legend: N rows, T selected rows, B sequences.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/ops.h"
#include "param/storage.h"

namespace dsengine::autograd {

// x [N, in], weight [out, in], bias [out] or none, residual [N, out] or none, which is added -> [N, out].
at::Tensor linear(const ops::Linear& op, const at::Tensor& x, const Parameter& weight, const Parameter& bias,
                  const at::Tensor& residual = {});
// Without a bias; y is float32 where x is bfloat16.
at::Tensor linear_wide(const ops::Linear& op, const at::Tensor& x, const Parameter& weight);
// table [V, H], ids [N] int64 -> [N, H]. anchor: wants a gradient where anything of the model is trained; else
// undefined.
at::Tensor embedding(const ops::Embedding& op, const Parameter& table, const at::Tensor& ids, const at::Tensor& anchor);
at::Tensor rms_norm(const ops::RmsNorm& op, const at::Tensor& x, const Parameter& weight);
// weight and bias may be none.
at::Tensor layer_norm(const ops::LayerNorm& op, const at::Tensor& x, const Parameter& weight, const Parameter& bias);
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
LogProb log_prob(const ops::LogProb& op, const at::Tensor& hidden, const Parameter& head, const at::Tensor& targets,
                 double temperature, bool entropy);

}  // namespace dsengine::autograd
