#include "model/offloaded_gradients.h"

#include <ATen/ATen.h>

#include "model/weights.h"

namespace dsengine {

void OffloadedGradients::bring(size_t section) {
  for (auto* unit : weights_.of_section(section)) {
    if (!unit->trained()) continue;
    at::Tensor grad = spare_.take(unit->grad().numel(), unit->grad().scalar_type());
    traffic_.count(int64_t(grad.nbytes()), [&] { grad.copy_(unit->grad()); });
    unit->bring_grad(std::move(grad));
  }
}

void OffloadedGradients::take_back(size_t section) {
  for (auto* unit : weights_.of_section(section)) {
    if (!unit->trained()) continue;
    at::Tensor grad = unit->let_go_grad();
    traffic_.count(int64_t(grad.nbytes()), [&] { at::Tensor(unit->grad()).copy_(grad); });
    spare_.give(std::move(grad));
  }
}

}  // namespace dsengine
