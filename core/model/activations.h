// Activation functions of feed-forward layers, element by element with the same bits wherever an element
// stands, and their derivatives.
//
//   at::Tensor y = activate(x, Activation::silu);                       // x [N, W], dense
//   at::Tensor y = gated_activate(gate_up, Activation::silu);           // activation(gate) * up
//
// silu (Elfwing et al. 2018), relu, gelu with erf and in its tanh form (Hendrycks and Gimpel 2016). CPU,
// float32 and float64.
#pragma once
#include <ATen/core/Tensor.h>

#include "model/graph.h"

namespace dsengine {

at::Tensor activate(const at::Tensor& x, Activation activation);
// dy * activation'(x).
at::Tensor activate_backward(const at::Tensor& dy, const at::Tensor& x, Activation activation);
// gate_up [N, 2W] -> [N, W].
at::Tensor gated_activate(const at::Tensor& gate_up, Activation activation);

}  // namespace dsengine
