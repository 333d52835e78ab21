// Row-wise operations give a row the same bits whatever rows stand beside it, and however many: what makes a
// rollout independent of batches and slots. Without kernels the results are LibTorch's.
#include "ops/ops.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "built_kernels.h"
#include "ops/verify_kernel.h"

namespace dsengine {
namespace {

using at::Tensor;

bool same_bits(const Tensor& a, const Tensor& b) { return a.sizes() == b.sizes() && at::equal(a, b); }

// f on rows [first, first + count) alone against the same rows of f on all.
template <class F>
void expect_row_invariant(const char* what, const Tensor& x, const F& f) {
  const Tensor all = f(x);
  for (const int64_t count : {1, 2, 3, 5, 7, 8, 9, 13, 16, 31, 64, 100})
    for (const int64_t first : {int64_t{0}, int64_t{3}, x.size(0) - count}) {
      const Tensor part = f(x.narrow(0, first, count).clone());
      EXPECT_TRUE(same_bits(part, all.narrow(0, first, count)))
          << what << ": rows " << first << " + " << count << " of width " << x.size(1) << " -> " << all.size(1);
    }
}

TEST(Ops, AreRowInvariant) {
  at::manual_seed(4);
  const Kernels& kernels = built_kernels();
  for (const int64_t width : {16, 24, 36, 40, 96, 200, 256}) {
    const Tensor x = at::randn({200, width}) * 3;
    const Tensor w = at::randn({width}), b = at::randn({width});
    for (const int64_t out : {1, 8, 24, 97, 192}) {
      const Tensor m = at::randn({out, width}), mb = at::randn({out});
      const ops::Linear linear(kernels, at::kFloat, width, out);
      expect_row_invariant("linear", x, [&](const Tensor& r) { return linear.forward(r, m); });
      expect_row_invariant("linear with bias", x, [&](const Tensor& r) { return linear.forward(r, m, mb); });
    }
    const ops::RmsNorm rms_norm(kernels, at::kFloat, width, 1e-5);
    const ops::LayerNorm layer_norm(kernels, at::kFloat, width, 1e-5);
    expect_row_invariant("rms_norm", x, [&](const Tensor& r) { return rms_norm.forward(r, w).y; });
    expect_row_invariant("layer_norm", x, [&](const Tensor& r) { return layer_norm.forward(r, w, b).y; });
    for (const auto a : {Activation::silu, Activation::relu, Activation::gelu, Activation::gelu_tanh}) {
      const ops::Activate plain(kernels, at::kFloat, width, a);
      const ops::GatedActivate gated(kernels, at::kFloat, width / 2, a);
      expect_row_invariant("activation", x, [&](const Tensor& r) { return plain.forward(r); });
      expect_row_invariant("gated", x, [&](const Tensor& r) { return gated.forward(r); });
    }
  }
}

TEST(Ops, ActivationsAreLibTorchs) {
  at::manual_seed(4);
  const Tensor x = at::linspace(-30, 30, 4001).view({1, 4001}), up = at::randn({1, 4001});
  const std::vector<std::pair<Activation, Tensor>> all{{Activation::silu, at::silu(x)},
                                                       {Activation::relu, at::relu(x)},
                                                       {Activation::gelu, at::gelu(x, "none")},
                                                       {Activation::gelu_tanh, at::gelu(x, "tanh")}};
  for (const auto& [activation, expected] : all) {
    const ops::Activate plain(built_kernels(), at::kFloat, 4001, activation);
    const ops::GatedActivate gated(built_kernels(), at::kFloat, 4001, activation);
    const auto difference = [&](const Tensor& ours, const Tensor& theirs) {
      return ((ours - theirs).abs() / theirs.abs().clamp_min(1)).max().item<double>();
    };
    EXPECT_LE(difference(plain.forward(x), expected), 1e-6) << int(activation);
    EXPECT_LE(difference(gated.forward(at::cat({x, up}, 1)), expected * up), 2e-6) << int(activation);
  }
}

}  // namespace
}  // namespace dsengine
