// Row-wise operations give a row the same bits whatever rows stand beside it, and however many: what makes a
// rollout independent of batches and slots.
#include "model/operations.h"

#include <gtest/gtest.h>

#include "golden_models.h"
#include "model/vector_math.h"

namespace dsengine {
namespace {

using at::Tensor;

const Operations& operations() {
  static const Operations ops(reference_kernels());
  return ops;
}

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

TEST(Operations, AreRowInvariant) {
  at::manual_seed(4);
  const Tensor weight = at::rand({1}), none;
  for (const int64_t width : {16, 24, 36, 40, 96, 200, 256}) {
    const Tensor x = at::randn({200, width}) * 3;
    const Tensor w = at::randn({width}), b = at::randn({width});
    for (const int64_t out : {1, 8, 24, 97, 192}) {
      const Tensor m = at::randn({out, width}), mb = at::randn({out});
      expect_row_invariant("linear", x, [&](const Tensor& r) { return operations().linear(r, m, none); });
      expect_row_invariant("linear with bias", x, [&](const Tensor& r) { return operations().linear(r, m, mb); });
    }
    expect_row_invariant("rms_norm", x, [&](const Tensor& r) { return operations().rms_norm(r, w, 1e-5); });
    expect_row_invariant("layer_norm", x, [&](const Tensor& r) { return operations().layer_norm(r, w, b, 1e-5); });
    for (const auto a : {Activation::silu, Activation::relu, Activation::gelu, Activation::gelu_tanh}) {
      expect_row_invariant("activation", x, [&](const Tensor& r) { return operations().activation(r, a); });
      expect_row_invariant("gated", x, [&](const Tensor& r) { return operations().gated_activation(r, a); });
    }
  }
}

TEST(Operations, VectorExpIsExp) {
  double worst = 0;
  for (float x = -87; x < 88; x += 0.0137f)
    worst = std::max(worst, std::abs(double(vector_exp(x)) / std::exp(double(x)) - 1));
  EXPECT_LT(worst, 2.4e-7);  // two units in the last place
  EXPECT_EQ(vector_exp(0.0f), 1.0f);
  EXPECT_LT(vector_exp(-1e30f), 2e-38f);
  EXPECT_GT(vector_exp(1e30f), 1e38f);
}

TEST(Operations, ActivationsAreLibTorchs) {
  at::manual_seed(4);
  const Tensor x = at::linspace(-30, 30, 4001).view({1, 4001}), up = at::randn({1, 4001});
  const std::vector<std::pair<Activation, Tensor>> all{{Activation::silu, at::silu(x)},
                                                       {Activation::relu, at::relu(x)},
                                                       {Activation::gelu, at::gelu(x, "none")},
                                                       {Activation::gelu_tanh, at::gelu(x, "tanh")}};
  for (const auto& [activation, expected] : all) {
    const auto difference = [&](const Tensor& ours, const Tensor& theirs) {
      return ((ours - theirs).abs() / theirs.abs().clamp_min(1)).max().item<double>();
    };
    EXPECT_LE(difference(operations().activation(x, activation), expected), 1e-6) << int(activation);
    EXPECT_LE(difference(operations().gated_activation(at::cat({x, up}, 1), activation), expected * up), 2e-6)
        << int(activation);
  }
}

}  // namespace
}  // namespace dsengine
