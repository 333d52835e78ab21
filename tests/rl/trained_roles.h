// Roles on the small models of tests/golden, trained by gradients that a test writes itself.
//
//   Role role = trained_role("llama_gqa", ModelKind::language, settings);
//   put_gradients(role, 1);                       // some of every trained parameter, other ones for another seed
//   role.step(1e-3, alone);
#pragma once
#include "../model/golden_models.h"
#include "comm/local.h"
#include "rl/role.h"

namespace dsengine {

inline OptimizerConfig constant_settings(double learning_rate) {
  OptimizerConfig settings;
  settings.learning_rate = learning_rate, settings.schedule = Schedule::constant;
  return settings;
}

inline Role trained_role(const std::string& name, ModelKind kind, const OptimizerConfig& settings,
                         const LoraConfig& lora = {}) {
  Role role{golden_model(name, kind), nullptr, settings, lora};
  role.enable_training(1);
  return role;
}

// Sines of a frequency and a phase of each block's own: no two are alike, none is zero.
inline void put_gradients(const Role& role, int seed) {
  at::NoGradGuard no_grad;
  int place = seed * 1000;
  for (const auto* unit : role.optimizer->units())
    for (size_t b = 0; b < unit->blocks().size(); ++b, ++place)
      if (at::Tensor grad = unit->grad_block(b); grad.defined())
        grad.copy_(
            at::sin(at::arange(grad.numel(), at::kDouble) * (0.3 + 0.01 * place) + place).view(grad.sizes()).mul(0.01));
}

// Of every trained unit, the values of its trained span.
inline std::vector<at::Tensor> trained_values(const Role& role) {
  std::vector<at::Tensor> values;
  for (const auto* unit : role.optimizer->units()) values.push_back(unit->trained_flat().clone());
  return values;
}

inline double greatest(const at::Tensor& t) { return t.abs().max().item<double>(); }

}  // namespace dsengine
