#include "model/offloaded_gradients.h"

#include <ATen/ATen.h>

#include "model/weights.h"

namespace dsengine {

void OffloadedGradients::bring(size_t section) {
  const MemoryScope scope(MemoryTag::gradients);
  for (auto* unit : weights_.of_section(section)) {
    if (!unit->trained()) continue;
    at::Tensor grad;
    if (spare_.defined() && spare_.sizes() == unit->grad().sizes()) {
      grad = std::exchange(spare_, at::Tensor());
    } else {
      spare_ = at::Tensor();
      grad = device_.empty(unit->grad().sizes(), unit->grad().scalar_type());
    }
    traffic_.count(int64_t(grad.nbytes()), [&] { grad.copy_(unit->grad()); });
    unit->bring_grad(std::move(grad));
  }
}

void OffloadedGradients::take_back(size_t section) {
  for (auto* unit : weights_.of_section(section)) {
    if (!unit->trained()) continue;
    spare_ = unit->let_go_grad();
    traffic_.count(int64_t(spare_.nbytes()), [&] { at::Tensor(unit->grad()).copy_(spare_); });
  }
}

}  // namespace dsengine
