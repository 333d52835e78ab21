#include <ATen/ATen.h>

#include "ops/reference/reference.h"

namespace dsengine::reference {

using at::Tensor;

ops::LogitSums logit_sums(const Tensor& z, const Tensor& targets, bool want_mean) {
  ops::LogitSums r{at::logsumexp(z, 1), z.gather(1, targets.unsqueeze(1)).squeeze(1), {}};
  if (want_mean) r.mean_logit = (z - r.lse.unsqueeze(1)).exp_().mul_(z).sum(1);
  return r;
}

}  // namespace dsengine::reference
