#include <ATen/ATen.h>

#include "ops/reference/reference.h"
#include "ops/wide.h"

namespace dsengine::reference {

using at::Tensor;
using ops::widened;

namespace {

Tensor shifted(const Tensor& w, double shift) { return shift == 0 ? w : w + shift; }

}  // namespace

ops::RmsNormed rms_norm(const Tensor& x, const Tensor& w, double eps, double shift) {
  const Tensor wide = widened(x), rstd = (wide.square().mean(1) + eps).rsqrt();
  return {(wide * rstd.unsqueeze(1) * shifted(widened(w), shift)).to(x.scalar_type()), rstd};
}

Tensor rms_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd, double shift) {
  const Tensor r = rstd.unsqueeze(1), wide = widened(x), g = widened(dy) * shifted(widened(w), shift);
  return (g * r - wide * ((g * wide).mean(1, true) * r * r * r)).to(x.scalar_type());
}

void rms_norm_weight_backward(const Tensor& dy, const Tensor& x, const Tensor& rstd, Tensor dw) {
  dw.add_((widened(dy) * widened(x)).mul_(rstd.unsqueeze(1)).sum(0));
}

ops::LayerNormed layer_norm(const Tensor& x, const Tensor& w, const Tensor& b, double eps) {
  const auto [y, mean, rstd] = at::native_layer_norm(widened(x), {x.size(1)}, widened(w), widened(b), eps);
  return {y.to(x.scalar_type()), mean.squeeze(1), rstd.squeeze(1)};
}

Tensor layer_norm_backward(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& mean, const Tensor& rstd) {
  const Tensor dx =
      std::get<0>(at::native_layer_norm_backward(widened(dy), widened(x), {x.size(1)}, mean.unsqueeze(1),
                                                 rstd.unsqueeze(1), widened(w), {}, {true, false, false}));
  return dx.to(x.scalar_type());
}

void layer_norm_weight_backward(const Tensor& dy, const Tensor& x, const Tensor& mean, const Tensor& rstd, Tensor dw,
                                Tensor db) {
  const Tensor ones = at::ones({x.size(1)}, rstd.options());  // its value does not enter the gradient of the weight
  const auto [_, weight, bias] =
      at::native_layer_norm_backward(widened(dy), widened(x), {x.size(1)}, mean.unsqueeze(1), rstd.unsqueeze(1), ones,
                                     ones, {false, dw.defined(), db.defined()});
  if (dw.defined()) dw.add_(weight);
  if (db.defined()) db.add_(bias);
}

}  // namespace dsengine::reference
