// The functions that the CPU's kernels compute for themselves, against the C library's in float64.
#include "../../plugins/kernels/cpu/targets.h"
// after targets.h
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "../../plugins/kernels/cpu/tile-inl.h"

namespace {

namespace kernels = cpu::HWY_NAMESPACE;

template <class F>
float of(const F& f, float x) {
  return kernels::hn::GetLane(f(kernels::hn::Set(kernels::d, x)));
}
float exp(float x) {
  return of([](auto v) { return kernels::exp(v); }, x);
}
float tanh(float x) {
  return of([](auto v) { return kernels::tanh(v); }, x);
}
float normal(float x) {
  return of([](auto v) { return kernels::normal(v); }, x);
}

TEST(Tile, ExpIsExp) {
  double worst = 0;
  for (float x = -87; x < 88; x += 0.0137f) worst = std::max(worst, std::abs(double(exp(x)) / std::exp(double(x)) - 1));
  EXPECT_LT(worst, 2.4e-7);  // two units in the last place
  EXPECT_EQ(exp(0.0f), 1.0f);
  EXPECT_LT(exp(-1e30f), 2e-38f);
  EXPECT_GT(exp(1e30f), 1e38f);
  EXPECT_TRUE(std::isnan(exp(NAN)) && std::isnan(tanh(NAN)) && std::isnan(normal(NAN)));
}

TEST(Tile, TanhAndTheNormalDistributionAreThemselves) {
  double worst_tanh = 0, worst_normal = 0;
  for (float x = -9; x < 12; x += 0.00137f) {
    worst_tanh = std::max(worst_tanh, std::abs(double(tanh(x)) / std::tanh(double(x)) - 1));
    const double exact = 0.5 * std::erfc(-double(x) * std::sqrt(0.5));
    worst_normal = std::max(worst_normal, std::abs(double(normal(x)) / exact - 1) / (1 + std::max(0.0, double(-x))));
  }
  EXPECT_LT(worst_tanh, 3e-7);
  EXPECT_LT(worst_normal, 8e-7);  // of x², which is rounded before exp, far on the left
  EXPECT_EQ(tanh(0.0f), 0.0f);
  EXPECT_EQ(normal(0.0f), 0.5f);
  EXPECT_NEAR(tanh(1e30f), 1, 1e-7);
  EXPECT_NEAR(normal(-1e30f), 0, 1e-37);
  EXPECT_EQ(normal(30.0f), 1.0f);
}

// The same 32 sums side by side, whatever a vector's width.
TEST(Tile, SumsAreMadeInOneOrder) {
  for (const int64_t n : {1, 7, 32, 33, 100}) {
    std::vector<float> x(size_t(n) + 64, 1e9f);  // beyond the row: not to be counted
    for (int64_t i = 0; i < n; ++i) x[size_t(i)] = std::sin(float(3 * i)) * float(1 + i % 5);
    float side[32] = {};
    for (int64_t i = 0; i < n; ++i) side[i % 32] += x[size_t(i)];
    for (int count = 16; count >= 8; count /= 2)
      for (int i = 0; i < count; ++i) side[i] += side[i + count];
    for (int i = 0; i < 4; ++i) side[i] += side[i + 4];
    const float expected = (side[0] + side[2]) + (side[1] + side[3]);
    EXPECT_EQ(kernels::sum_of(n, [&](int64_t i, int64_t left) { return kernels::load_some(x.data() + i, left); }),
              expected)
        << n;
  }
}

}  // namespace
