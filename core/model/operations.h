// The operations of the catalogue, differentiable: each is the plugins' kernel where one serves it, else the
// reference. Gradients of parameters are added straight into the parameter's .grad.
//
//   Operations ops(kernels);
//   at::Tensor y = ops.linear(ops.rms_norm(x, weight, 1e-5), qkv, {});      // row-wise, batch-invariant
//
// Legend: N tokens, H width. Row-wise operations give a row the same bits whatever rows stand beside it.
#pragma once
#include <ATen/core/Tensor.h>

#include "model/graph.h"
#include "model/kernels.h"

namespace dsengine {

class Operations {
 public:
  explicit Operations(const Kernels& kernels) : kernels_(&kernels) {}

  // x [N, in], weight [out, in], bias [out] or undefined -> [N, out].
  at::Tensor linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias) const;
  // table [V, H], rows [N] int64 -> [N, H].
  at::Tensor embedding(const at::Tensor& table, const at::Tensor& rows) const;
  // The weight that multiplies is weight + shift.
  at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps, double shift = 0) const;
  // weight and bias may be undefined.
  at::Tensor layer_norm(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias, double eps) const;
  at::Tensor activation(const at::Tensor& x, Activation activation) const;
  // gate_up [N, 2W] -> activation(gate) * up, [N, W].
  at::Tensor gated_activation(const at::Tensor& gate_up, Activation activation) const;
  // Turns the first `heads` heads of qkv [N, heads, D], in a copy: pairs (i, i + size of frequencies). lengths [N] of
  // the tokens' sequences are read where long ones turn otherwise.
  at::Tensor rope(const at::Tensor& x, int64_t heads, const at::Tensor& positions, const at::Tensor& lengths,
                  const RopeSpec& rope) const;
  // Causal self-attention over ragged sequences: q [N, Hq, D], k and v [N, Hk, D] -> [N, Hq, D].
  at::Tensor attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const std::vector<int64_t>& offsets, const AttentionScores& scores) const;

 private:
  const Kernels* kernels_;
};

// Plain reference product y = x wᵀ (+ b), with rows filled up to a multiple of 8 for BLAS: sgemm takes other
// kernels, and other roundings, for the rows beyond, so that a row's bits would depend on its neighbours. Holds for
// widths that are multiples of 4, which models have; seen to fail at 250 inputs and 8 outputs, there to rounding only.
at::Tensor reference_linear(const at::Tensor& x, const at::Tensor& weight, const at::Tensor& bias);

}  // namespace dsengine
