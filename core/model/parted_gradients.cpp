#include "model/parted_gradients.h"

#include <ATen/ATen.h>

#include "model/weights.h"

namespace dsengine {

void PartedGradients::bring(size_t section) {
  for (auto* unit : weights_.of_section(section)) {
    if (!unit->trained()) continue;
    at::Tensor grad = spare_.take(unit->trained_numel(), unit->grad().scalar_type());
    if (unit->grad_cut())
      grad.zero_();
    else
      traffic_.count(int64_t(grad.nbytes()), [&] { grad.copy_(unit->grad()); });
    unit->bring_grad(std::move(grad));
  }
}

void PartedGradients::take_back(size_t section) {
  for (auto* unit : weights_.of_section(section)) {
    if (!unit->trained()) continue;
    at::Tensor grad = unit->let_go_grad();
    const at::Tensor kept = unit->grad();
    if (unit->grad_cut()) {
      sharding_.ranks->reduce_parts(grad, unit->cuts());
      const at::Tensor own = grad.narrow(0, unit->own_begin(), kept.numel());
      if (unit->grad_elsewhere())
        traffic_.count(int64_t(own.nbytes()), [&] { kept.add_(own.to(kept.device())); });
      else
        kept.add_(own);
    } else {
      traffic_.count(int64_t(grad.nbytes()), [&] { kept.copy_(grad); });
    }
    spare_.give(std::move(grad));
  }
}

}  // namespace dsengine
