#include <ATen/ATen.h>

#include "ops/reference/reference.h"

namespace dsengine::reference {

using at::Tensor;

namespace {

Tensor shifted(const Tensor& w, double shift) { return shift == 0 ? w : w + shift; }

}  // namespace

ops::RmsNormed rms_norm(const Tensor& x, const Tensor& w, double eps, double shift) {
  const Tensor rstd = (x.square().mean(1) + eps).rsqrt();
  return {x * rstd.unsqueeze(1) * shifted(w, shift), rstd};
}

Tensor rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd, double shift) {
  const Tensor r = rstd.unsqueeze(1), g = dy * shifted(w, shift);
  return g * r - x * ((g * x).mean(1, true) * r * r * r);
}

void rms_norm_weight_backward(const Tensor& dy, const Tensor& x, const Tensor& rstd, Tensor dw) {
  dw.add_((dy * x).mul_(rstd.unsqueeze(1)).sum(0));
}

ops::LayerNormed layer_norm(const Tensor& x, const Tensor& w, const Tensor& b, double eps) {
  const auto [y, mean, rstd] = at::native_layer_norm(x, {x.size(1)}, w, b, eps);
  return {y, mean.squeeze(1), rstd.squeeze(1)};
}

Tensor layer_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd) {
  return std::get<0>(at::native_layer_norm_backward(dy, x, {x.size(1)}, mean.unsqueeze(1), rstd.unsqueeze(1), w, {},
                                                    {true, false, false}));
}

void layer_norm_weight_backward(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& rstd, Tensor dw,
                                Tensor db) {
  const Tensor ones = at::ones({x.size(1)}, x.options());  // its value does not enter the gradient of the weight
  const auto [_, weight, bias] = at::native_layer_norm_backward(
      dy, x, {x.size(1)}, mean.unsqueeze(1), rstd.unsqueeze(1), ones, ones, {false, dw.defined(), db.defined()});
  if (dw.defined()) dw.add_(weight);
  if (db.defined()) db.add_(bias);
}

}  // namespace dsengine::reference
