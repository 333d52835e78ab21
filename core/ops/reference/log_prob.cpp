#include <ATen/ATen.h>

#include "ops/reference/reference.h"

namespace dsengine::reference {

using at::Tensor;

ops::LogitSums logit_sums(const Tensor& z, const Tensor& targets, bool want_mean) {
  ops::LogitSums r{at::logsumexp(z, 1), z.gather(1, targets.unsqueeze(1)).squeeze(1), {}};
  if (want_mean) r.mean_logit = (z - r.lse.unsqueeze(1)).exp_().mul_(z).sum(1);
  return r;
}

Tensor draw(const Tensor& z, const Tensor& draws) {
  // In order, which a card's cumsum does not promise.
  const Tensor p = at::softmax(z.to(at::kDouble), 1);
  const Tensor up_to = p.is_cuda() ? p.cpu().cumsum_(1).to(p.device()) : p.cumsum(1);
  const Tensor below = up_to.le(draws.unsqueeze(1));
  return at::where(draws < 0, z.argmax(1), below.sum(1).clamp_max_(z.size(1) - 1));
}

}  // namespace dsengine::reference
