// Activation functions of feed-forward layers and their slopes: silu (Elfwing et al. 2018), relu, gelu with erf and in
// its tanh form (Hendrycks and Gimpel 2016).
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "activations.cpp"
#include "targets.h"
// after targets.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <numbers>

#include <dsengine/abi.h>

#include "tile-inl.h"

#ifndef DSE_CPU_ACTIVATION_ROWS
#define DSE_CPU_ACTIVATION_ROWS
namespace cpu {

// Rows of a call: y = f(x), or f(gate) up where `gated`, and back.
struct ActivationRows {
  uint32_t activation;
  bool gated;
  int64_t width;  // of y
  const float *x, *dy;
  float *y, *dx;
};

}  // namespace cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

struct Valued {
  V value, slope;
};
HWY_INLINE V set(double value) { return hn::Set(d, float(value)); }
HWY_INLINE V sigmoid(V x) { return hn::Div(set(1), hn::Add(set(1), exp(hn::Neg(x)))); }

struct Silu {
  static HWY_INLINE Valued of(V x) {
    const V s = sigmoid(x), y = hn::Mul(x, s);
    return {y, hn::MulAdd(y, hn::Sub(set(1), s), s)};
  }
};
struct Relu {
  static HWY_INLINE Valued of(V x) {
    const auto positive = hn::Gt(x, set(0));
    return {hn::IfThenElseZero(positive, x), hn::IfThenElseZero(positive, set(1))};
  }
};
struct Gelu {
  static HWY_INLINE Valued of(V x) {
    const V half = normal(x);
    const V density =
        hn::Mul(set(std::numbers::inv_sqrtpi / std::numbers::sqrt2), exp(hn::Mul(set(-0.5), hn::Mul(x, x))));
    return {hn::Mul(x, half), hn::MulAdd(x, density, half)};
  }
};
struct GeluTanh {
  static HWY_INLINE Valued of(V x) {  // 0.5 (1 + tanh u) = 1 / (1 + exp(-2 u)), u = sqrt(2 / π) (x + 0.044715 x³)
    const V square = hn::Mul(x, x), rate = set(2 * std::numbers::sqrt2 * std::numbers::inv_sqrtpi);
    const V s = sigmoid(hn::Mul(rate, hn::MulAdd(hn::Mul(set(0.044715), square), x, x)));
    const V slope = hn::Mul(rate, hn::MulAdd(set(3 * 0.044715), square, set(1)));
    return {hn::Mul(x, s), hn::MulAdd(hn::Mul(hn::Mul(x, s), hn::Sub(set(1), s)), slope, s)};
  }
};

template <class F>
HWY_INLINE void forward_rows(const ActivationRows& r, int64_t first, int64_t last) {
  const int64_t stride = r.gated ? 2 * r.width : r.width;
  for (int64_t n = first; n < last; ++n) {
    const float* x = r.x + n * stride;
    each_vector(r.width, [&](int64_t i, int64_t left, int64_t) HWY_ATTR {
      V y = F::of(load_some(x + i, left)).value;
      if (r.gated) y = hn::Mul(y, load_some(x + r.width + i, left));
      store_some(y, r.y + n * r.width + i, left);
    });
  }
}

template <class F>
HWY_INLINE void backward_rows(const ActivationRows& r, int64_t first, int64_t last) {
  const int64_t stride = r.gated ? 2 * r.width : r.width;
  for (int64_t n = first; n < last; ++n) {
    const float *x = r.x + n * stride, *dy = r.dy + n * r.width;
    float* dx = r.dx + n * stride;
    each_vector(r.width, [&](int64_t i, int64_t left, int64_t) HWY_ATTR {
      const Valued f = F::of(load_some(x + i, left));
      const V g = load_some(dy + i, left);
      if (r.gated) store_some(hn::Mul(g, f.value), dx + r.width + i, left);
      store_some(hn::Mul(r.gated ? hn::Mul(g, load_some(x + r.width + i, left)) : g, f.slope), dx + i, left);
    });
  }
}

template <class F>
HWY_INLINE void run_activation(const ActivationRows& r, int64_t first, int64_t last) {
  if (r.dy)
    backward_rows<F>(r, first, last);
  else
    forward_rows<F>(r, first, last);
}

void activate(const ActivationRows& r, int64_t first, int64_t last) {
  switch (r.activation) {
    case DSE_SILU:
      return run_activation<Silu>(r, first, last);
    case DSE_RELU:
      return run_activation<Relu>(r, first, last);
    case DSE_GELU:
      return run_activation<Gelu>(r, first, last);
    default:
      return run_activation<GeluTanh>(r, first, last);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels.h"

namespace cpu {

HWY_EXPORT(activate);

namespace {

using dse::Op;

template <Op op>
struct Activate {
  static constexpr dse::KernelTraits traits{.op = op, .priority = 1, .row_invariant = true};
  static constexpr bool backward = op == Op::activation_backward || op == Op::gated_activation_backward;
  explicit Activate(const dse_operation& o) : width(o.out), activation(o.activation) {
    check_instruction_set();
    if (activation > DSE_GELU_TANH) throw dse::Unsupported("an activation that it does not know");
  }
  void run(const dse::Call<op>& call) const {
    ActivationRows r{activation, op >= Op::gated_activation, width, call.template in<float>("x"), nullptr, nullptr,
                     nullptr};
    if constexpr (backward)
      r.dy = call.template in<float>("dy"), r.dx = call.template out<float>("dx");
    else
      r.y = call.template out<float>("y");
    const auto run_rows = HWY_DYNAMIC_DISPATCH(activate);
    dse::parallel_for(0, call.rows(), std::max<int64_t>(1, 8192 / std::max<int64_t>(1, width)),
                      [&](int64_t first, int64_t last) { run_rows(r, first, last); });
  }
  int64_t width;
  uint32_t activation;
};

}  // namespace

void add_activations(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<Activate<Op::activation>>("cpu_activation"));
  items.push_back(dse::kernel_item<Activate<Op::activation_backward>>("cpu_activation_backward"));
  items.push_back(dse::kernel_item<Activate<Op::gated_activation>>("cpu_gated_activation"));
  items.push_back(dse::kernel_item<Activate<Op::gated_activation_backward>>("cpu_gated_activation_backward"));
}

}  // namespace cpu
#endif
