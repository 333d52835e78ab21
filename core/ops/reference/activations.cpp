#include <ATen/ATen.h>

#include "base/check.h"
#include "ops/reference/reference.h"

namespace dsengine::reference {

using at::Tensor;

Tensor activation(const Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::silu:
      return at::silu(x);
    case Activation::relu:
      return at::relu(x);
    case Activation::gelu:
      return at::gelu(x, "none");
    case Activation::gelu_tanh:
      return at::gelu(x, "tanh");
  }
  DSE_CHECK(false, "activation");
}

Tensor activation_backward(const Tensor& dy, const Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::silu:
      return at::silu_backward(dy, x);
    case Activation::relu:
      return at::threshold_backward(dy, x, 0);
    case Activation::gelu:
      return at::gelu_backward(dy, x, "none");
    case Activation::gelu_tanh:
      return at::gelu_backward(dy, x, "tanh");
  }
  DSE_CHECK(false, "activation");
}

}  // namespace dsengine::reference
