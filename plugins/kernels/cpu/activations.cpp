// Activation functions of feed-forward layers: silu (Elfwing et al. 2018), relu, gelu with erf and in its tanh form
// (Hendrycks and Gimpel 2016).
#include <algorithm>
#include <cmath>
#include <numbers>

#include "kernels.h"
#include "vector_math.h"

namespace cpu {
namespace {

using dse::Op;

// Functors, so that the loops over them vectorise.
struct Silu {
  float operator()(float x) const { return x / (1.0f + vector_exp(-x)); }
};
struct Relu {
  float operator()(float x) const { return x > 0.0f ? x : 0.0f; }
};
struct Gelu {
  float operator()(float x) const { return 0.5f * x * (1.0f + std::erf(x * float(std::numbers::sqrt2 / 2))); }
};
struct GeluTanh {
  float operator()(float x) const {  // 0.5 (1 + tanh u) = 1 / (1 + exp(-2u))
    const float u = float(std::numbers::sqrt2 * std::numbers::inv_sqrtpi) * std::fma(0.044715f * x * x, x, x);
    return x / (1.0f + vector_exp(-(u + u)));
  }
};

template <class F>
void dispatch(uint32_t activation, const F& f) {
  switch (activation) {
    case DSE_SILU:
      return f(Silu());
    case DSE_RELU:
      return f(Relu());
    case DSE_GELU:
      return f(Gelu());
    case DSE_GELU_TANH:
      return f(GeluTanh());
  }
}

uint32_t known(uint32_t activation) {
  if (activation > DSE_GELU_TANH) throw dse::Unsupported("an activation that it does not know");
  return activation;
}

// Row by row: to = f(from), or f(gate) * up where the rows that are read are twice as wide.
template <class F>
void run_rows(const float* from_rows, float* to_rows, int64_t rows, int64_t from_width, int64_t width, const F& f) {
  dse::parallel_for(0, rows, std::max<int64_t>(1, 8192 / width), [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      const float* from = from_rows + n * from_width;
      float* to = to_rows + n * width;
      if (from_width == width) {
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) to[i] = f(from[i]);
      } else {
#pragma omp simd
        for (int64_t i = 0; i < width; ++i) to[i] = f(from[i]) * from[width + i];
      }
    }
  });
}

template <Op op>
struct Activate {
  static constexpr dse::KernelTraits traits{.op = op, .priority = 1, .row_invariant = true};
  explicit Activate(const dse_operation& o) : in(o.in), out(o.out), activation(known(o.activation)) {}
  void run(const dse::Call<op>& call) const {
    dispatch(activation, [&](auto f) {
      run_rows(call.template in<float>("x"), call.template out<float>("y"), call.rows(), in, out, f);
    });
  }
  int64_t in, out;
  uint32_t activation;
};

}  // namespace

void add_activations(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<Activate<Op::activation>>("cpu_activation"));
  items.push_back(dse::kernel_item<Activate<Op::gated_activation>>("cpu_gated_activation"));
}

}  // namespace cpu
