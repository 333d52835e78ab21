// RMSNorm (Zhang and Sennrich 2019). Its weight's gradient is a sum over rows, which is left to LibTorch.
#include <cmath>

#include "kernels.h"

namespace cpu {
namespace {

using dse::Op;

// Of one row, as functions of their own: so the compiler vectorises them.
float sum_of_squares(const float* a, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * a[i];
  return sum;
}

float weighted_product(const float* g, const float* w, float shift, const float* a, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += g[i] * (w[i] + shift) * a[i];
  return sum;
}

struct RmsNorm {
  static constexpr dse::KernelTraits traits{.op = Op::rms_norm, .priority = 1, .row_invariant = true};
  explicit RmsNorm(const dse_operation& o) : width(o.in), eps(float(o.eps)), shift(float(o.shift)) {}
  void run(const dse::Call<traits.op>& call) const {
    const float *xs = call.in<float>("x"), *ws = call.in<float>("w");
    float *ys = call.out<float>("y"), *rs = call.out<float>("rstd");
    dse::parallel_for(0, call.rows(), 32, [&](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        const float* a = xs + n * width;
        const float r = 1.0f / std::sqrt(sum_of_squares(a, width) / float(width) + eps);
        rs[n] = r;
        for (int64_t i = 0; i < width; ++i) ys[n * width + i] = a[i] * r * (ws[i] + shift);
      }
    });
  }
  int64_t width;
  float eps, shift;
};

struct RmsNormBackward {
  static constexpr dse::KernelTraits traits{.op = Op::rms_norm_backward, .priority = 1, .row_invariant = true};
  explicit RmsNormBackward(const dse_operation& o) : width(o.in), shift(float(o.shift)) {}
  void run(const dse::Call<traits.op>& call) const {
    const float *gs = call.in<float>("dy"), *xs = call.in<float>("x"), *ws = call.in<float>("w");
    const float* rs = call.in<float>("rstd");
    float* ds = call.out<float>("dx");
    dse::parallel_for(0, call.rows(), 32, [&](int64_t first, int64_t last) {
      for (int64_t n = first; n < last; ++n) {
        const float *a = xs + n * width, *g = gs + n * width, r = rs[n];
        const float pull = weighted_product(g, ws, shift, a, width) * r * r * r / float(width);
        for (int64_t i = 0; i < width; ++i) ds[n * width + i] = g[i] * (ws[i] + shift) * r - a[i] * pull;
      }
    });
  }
  int64_t width;
  float shift;
};

}  // namespace

void add_norms(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<RmsNorm>("cpu_rms_norm"));
  items.push_back(dse::kernel_item<RmsNormBackward>("cpu_rms_norm_backward"));
}

}  // namespace cpu
