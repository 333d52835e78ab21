#include <ATen/ATen.h>

#include <bit>

#include "ops/ops.h"
#include "ops/reference/reference.h"

namespace dsengine::ops {

using at::Tensor;
using dse::Op;

SumOfSquares::SumOfSquares(const Kernels& kernels)
    : kernel_(kernels.bind({.op = Op::sum_of_squares, .dtype = at::kFloat})) {}

double SumOfSquares::operator()(const Tensor& x) const {
  if (!kernel_) return reference::sum_of_squares(x);
  Tensor sum = at::empty({1}, x.options().dtype(at::kDouble));
  kernel_.run({x}, {sum}, x.numel());
  return on_host(sum).item<double>();
}

AdamWUpdate::AdamWUpdate(const Kernels& kernels) : kernel_(kernels.bind({.op = Op::adamw, .dtype = at::kFloat})) {}

void AdamWUpdate::operator()(const Tensor& gradient, Tensor w, Tensor m, Tensor v, const AdamWNumbers& n) const {
  if (!kernel_) return reference::adamw(gradient, w, m, v, n);
  kernel_.run({gradient}, {w, m, v}, w.numel(), {n.clip, n.beta1, n.beta2, n.step_size, n.keep, n.root2, n.epsilon},
              {n.decayed});
}

StochasticRound::StochasticRound(const Kernels& kernels)
    : kernel_(kernels.bind({.op = Op::stochastic_round, .dtype = at::kBFloat16})) {}

void StochasticRound::operator()(const Tensor& x, Tensor y, int64_t first, const RoundingDraws& draws) const {
  if (!kernel_) return reference::stochastic_round(x, y, first, draws);
  const auto number = [](std::array<uint32_t, 2> halves) { return std::bit_cast<int64_t>(halves); };
  kernel_.run({x}, {y}, x.numel(), {},
              {number(draws.draws.key()), number(draws.draws.high()), first, int64_t(draws.stream)});
}

}  // namespace dsengine::ops
