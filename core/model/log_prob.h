// Log-probabilities of chosen tokens without storing a batch's logits: head, log-softmax and gather run over
// chunks of rows, forward and backward.
//
//   auto [logp, entropy] = log_prob(kernels, hidden_TH, head_VH, targets, 1.0, true);
//
// Legend: T selected positions, H width, V vocabulary.
#pragma once
#include <ATen/core/Tensor.h>

#include "model/kernels.h"

namespace dsengine {

struct LogProb {
  at::Tensor logp;     // [T]: log-softmax(hidden · headᵀ / temperature) at the target
  at::Tensor entropy;  // [T]: of that distribution, nats; undefined unless asked for
};

// targets [T] int64. Differentiable by hidden and head (whose gradient is added to head.grad()). softcap as in logits.
LogProb log_prob(const Kernels& kernels, const at::Tensor& hidden_TH, const at::Tensor& head_VH,
                 const at::Tensor& targets_T, double temperature, bool entropy, double softcap = 0);

// hidden · headᵀ, [T, V]: for sampling. With a softcap > 0: softcap * tanh(hidden · headᵀ / softcap).
at::Tensor logits(const Kernels& kernels, const at::Tensor& hidden_TH, const at::Tensor& head_VH, double softcap = 0);

}  // namespace dsengine
