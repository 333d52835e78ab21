// Products of a few rows in bfloat16, beside float64's.
#pragma once
#include <ATen/ATen.h>
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>

#include "ops/ops.h"

namespace dsengine {

// Ends of tiles in each direction, sums in parts, rings that go round, heads. same_bits: of a row among however many.
inline void expect_thin_products(const Kernels& kernels, bool same_bits) {
  const at::NoGradGuard no_grad;
  const auto drawn = [&](at::IntArrayRef sizes) {
    return at::randn(sizes).to(at::kBFloat16).to(kernels.device().where());
  };
  struct Shape {
    int64_t in, out, rows;
  };
  for (const auto [in, out, rows] : std::vector<Shape>{{8, 8, 5},        // less than a tile
                                                       {64, 64, 64},     // just one
                                                       {200, 72, 33},    // and more
                                                       {1024, 136, 17},  // the sum in parts
                                                       {8192, 64, 64},   // which go round the ring
                                                       {64, 6144, 9},    // lower tiles
                                                       {1600, 4232, 9},  // a whole sum that goes round
                                                       {128, 32776, 33}}) {
    SCOPED_TRACE(std::to_string(rows) + " rows, " + std::to_string(in) + " -> " + std::to_string(out));
    const ops::Linear linear(kernels, at::kBFloat16, in, out);
    const auto x = drawn({rows, in}), w = drawn({out, in}), b = drawn({out}), residual = drawn({rows, out});
    const auto sums = at::matmul(x.to(at::kDouble), w.to(at::kDouble).t());
    const auto size = at::matmul(x.to(at::kDouble).abs(), w.to(at::kDouble).abs().t());
    // A float32 sum's error grows with what was summed.
    const auto wide = linear.forward_wide(x, w);
    EXPECT_LT(((wide.to(at::kDouble) - sums).abs() / size).max().item<double>(), 2e-6);
    // A bfloat16 is off by a 256th of itself at most.
    const auto narrow = linear.forward(x, w, b, residual);
    const auto whole = sums + b.to(at::kDouble) + residual.to(at::kDouble);
    EXPECT_TRUE(at::all((narrow.to(at::kDouble) - whole).abs() <= whole.abs() / 256 + 1e-5 * size).item<bool>());
    if (!same_bits) continue;
    EXPECT_TRUE(at::equal(linear.forward(x, w), wide.to(at::kBFloat16)));
    for (const int64_t few : {int64_t{1}, rows / 2 + 1}) {
      const auto alone = linear.forward(x.narrow(0, 0, few), w, b, residual.narrow(0, 0, few));
      EXPECT_TRUE(at::equal(alone, narrow.narrow(0, 0, few))) << few;
    }
  }
}

// And with an activation, of a gate too: both halves, sums in parts, rings that go round, both heights of a tile.
// Nothing where no kernel has them in one.
inline void expect_thin_activations(const Kernels& kernels) {
  const at::NoGradGuard no_grad;
  const auto drawn = [&](at::IntArrayRef sizes) {
    return at::randn(sizes).to(at::kBFloat16).to(kernels.device().where());
  };
  for (const bool gated : {false, true})
    for (const auto& [in, out, rows] : std::vector<std::array<int64_t, 3>>{{64, 32, 3},
                                                                           {200, 40, 33},
                                                                           {1024, 136, 17},
                                                                           {8192, 64, 64},
                                                                           {1600, 2120, 9},
                                                                           {64, 3208, 33},
                                                                           {64, 64, 65}}) {
      SCOPED_TRACE(fmt::format("{} rows, {} -> {}{}", rows, in, out, gated ? " gated" : ""));
      const ops::LinearActivate whole(kernels, at::kBFloat16, in, out, Activation::silu, gated);
      if (!whole) continue;
      const auto x = drawn({rows, in}), w = drawn({gated ? 2 * out : out, in}), b = drawn({w.size(0)});
      const auto z = at::matmul(x.to(at::kDouble), w.to(at::kDouble).t()) + b.to(at::kDouble);
      const auto size = at::matmul(x.to(at::kDouble).abs(), w.to(at::kDouble).abs().t()) + 1;
      const auto y = whole.forward(x, w, b).to(at::kDouble);
      const auto gate = at::silu(z.narrow(1, 0, out)), up = gated ? z.narrow(1, out, out) : at::ones_like(gate);
      // A result is rounded once, and where there are many rows the sums are too; a gate's slope is 1.1 at most.
      const auto off = (rows > 64 ? z.abs() / 256 : at::zeros_like(z)) + 2e-6 * size;
      const auto of_gate = 1.1 * off.narrow(1, 0, out) * up.abs();
      const auto of_up = gated ? off.narrow(1, out, out) * gate.abs() : at::zeros_like(gate);
      const auto room = (gate * up).abs() / 256 + 1.1 * (of_gate + of_up);
      EXPECT_TRUE(at::all((y - gate * up).abs() <= room).item<bool>())
          << ((y - gate * up).abs() - room).max().item<double>();
    }
}

}  // namespace dsengine
