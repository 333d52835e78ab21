// AdamW (Loshchilov and Hutter 2019) and the sum of squares of its gradients, over flat buffers. Neither depends on the
// number of threads: every element is computed alone, and the sum is made in blocks of a fixed size.
#include <algorithm>
#include <cmath>

#include "kernels.h"

namespace cpu {
namespace {

using dse::Op;

constexpr int64_t kBlock = 1 << 14;  // elements a partial sum

struct SumOfSquares {
  static constexpr dse::KernelTraits traits{.op = Op::sum_of_squares, .priority = 1, .row_invariant = true};
  explicit SumOfSquares(const dse_operation&) {}
  static int64_t blocks(int64_t n) { return (n + kBlock - 1) / kBlock; }
  int64_t workspace_bytes(int64_t rows) const { return blocks(rows) * int64_t(sizeof(double)); }
  void run(const dse::Call<traits.op>& call) const {
    const float* x = call.in<float>("x");
    const int64_t n = call.rows();
    auto* partial = static_cast<double*>(call.raw.workspace);
    dse::parallel_for(0, blocks(n), 1, [&](int64_t first, int64_t last) {
      for (int64_t b = first; b < last; ++b) {
        double sum = 0;
        for (int64_t i = b * kBlock; i < std::min(n, (b + 1) * kBlock); ++i) sum += double(x[i]) * x[i];
        partial[b] = sum;
      }
    });
    double total = 0;
    for (int64_t b = 0; b < blocks(n); ++b) total += partial[b];
    *call.out<double>("sum") = total;
  }
};

struct AdamW {
  static constexpr dse::KernelTraits traits{.op = Op::adamw, .priority = 1, .row_invariant = true};
  explicit AdamW(const dse_operation&) {}
  void run(const dse::Call<traits.op>& call) const {
    const float* g = call.in<float>("gradient");
    float *w = call.out<float>("w"), *m = call.out<float>("m"), *v = call.out<float>("v");
    const float clip = float(call.real("clip")), step_size = float(call.real("step_size"));
    const float root2 = float(call.real("root2")), epsilon = float(call.real("epsilon"));
    const double beta1 = call.real("beta1"), beta2 = call.real("beta2");
    const float b1 = float(beta1), b2 = float(beta2), c1 = float(1 - beta1), c2 = float(1 - beta2);
    const float keep = float(call.real("keep"));
    const int64_t decayed = call.integer("decayed");
    const auto update = [=](int64_t first, int64_t last, float kept) {
      for (int64_t i = first; i < last; ++i) {
        const float gradient = g[i] * clip;
        m[i] = b1 * m[i] + c1 * gradient;
        v[i] = b2 * v[i] + c2 * gradient * gradient;
        w[i] = w[i] * kept - step_size * m[i] / (std::sqrt(v[i]) / root2 + epsilon);
      }
    };
    dse::parallel_for(0, call.rows(), kBlock, [&](int64_t first, int64_t last) {
      update(first, std::min(last, decayed), keep);
      update(std::max(first, decayed), last, 1.0f);
    });
  }
};

}  // namespace

void add_optimizer(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<SumOfSquares>("cpu_sum_of_squares"));
  items.push_back(dse::kernel_item<AdamW>("cpu_adamw"));
}

}  // namespace cpu
