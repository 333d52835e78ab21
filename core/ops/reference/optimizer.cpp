#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <bit>

#include "ops/reference/reference.h"
#include "ops/threads.h"

namespace dsengine::reference {

using at::Tensor;

namespace {

constexpr int64_t kChunk = 1 << 22;  // elements at once, so that no copy of a whole unit is made

}  // namespace

double sum_of_squares(const Tensor& x) {
  Tensor total = at::zeros({}, x.options().dtype(at::kDouble));
  for (int64_t first = 0; first < x.numel(); first += kChunk)
    total += x.narrow(0, first, std::min(kChunk, x.numel() - first)).to(at::kDouble).square_().sum();
  return on_host(total).item<double>();
}

void adamw(const Tensor& gradient, Tensor w, Tensor m, Tensor v, const ops::AdamWNumbers& n) {
  for (int64_t first = 0; first < w.numel(); first += kChunk) {
    const int64_t count = std::min(kChunk, w.numel() - first);
    const int64_t decayed = std::clamp<int64_t>(n.decayed - first, 0, count);
    const Tensor g = gradient.narrow(0, first, count) * n.clip;
    Tensor weight = w.narrow(0, first, count);
    const Tensor first_moment = m.narrow(0, first, count).mul_(n.beta1).add_(g, 1 - n.beta1);
    const Tensor second_moment = v.narrow(0, first, count).mul_(n.beta2).addcmul_(g, g, 1 - n.beta2);
    if (n.keep != 1) weight.narrow(0, 0, decayed).mul_(n.keep);
    weight.addcdiv_(first_moment, second_moment.sqrt().div_(n.root2).add_(n.epsilon), -n.step_size);
  }
}

// Of each element 16 bits, of eight at once.
void stochastic_round(const Tensor& x, Tensor y, int64_t first, const ops::RoundingDraws& draws) {
  if (x.is_meta()) return;
  constexpr int64_t kElementsAThread = 1 << 14;
  const Tensor from_here = on_host(x);
  const auto* const from = from_here.const_data_ptr<float>() - first;
  edit_on_host(y, [&](const Tensor& here) {
    auto* const to = static_cast<uint16_t*>(here.data_ptr()) - first;
    parallel_for(first, first + x.numel(), kElementsAThread, [&](int64_t i, int64_t last) {
      while (i < last) {
        const int64_t group = i / 8, end = std::min(last, 8 * (group + 1));
        const auto halves =
            std::bit_cast<std::array<uint16_t, 8>>(draws.draws.block(2 * uint64_t(group) + draws.stream));
        for (; i < end; ++i) to[i] = uint16_t((std::bit_cast<uint32_t>(from[i]) + halves[size_t(i % 8)]) >> 16);
      }
    });
  });
}

}  // namespace dsengine::reference
