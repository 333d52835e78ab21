#include "model/activations.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <numbers>

#include "base/check.h"
#include "model/vector_math.h"

namespace dsengine {

using at::Tensor;

namespace {

// Functors, so that the loops over them vectorise.
struct Silu {
  template <class T>
  T operator()(T x) const {
    return x / (T(1) + vector_exp(-x));
  }
};
struct Relu {
  template <class T>
  T operator()(T x) const {
    return x > T(0) ? x : T(0);
  }
};
struct Gelu {
  template <class T>
  T operator()(T x) const {
    return T(0.5) * x * (T(1) + std::erf(x * T(std::numbers::sqrt2 / 2)));
  }
};
struct GeluTanh {
  template <class T>
  T operator()(T x) const {  // 0.5 (1 + tanh u) = 1 / (1 + exp(-2u))
    const T u = T(std::numbers::sqrt2 * std::numbers::inv_sqrtpi) * std::fma(T(0.044715) * x * x, x, x);
    return x / (T(1) + vector_exp(-(u + u)));
  }
};

template <class F>
void dispatch(Activation activation, const F& f) {
  switch (activation) {
    case Activation::silu:
      return f(Silu());
    case Activation::relu:
      return f(Relu());
    case Activation::gelu:
      return f(Gelu());
    case Activation::gelu_tanh:
      return f(GeluTanh());
  }
  DSE_CHECK(false, "activation");
}

// Row by row: out = f(in), or f(gate) * up where the rows of `in` are twice as wide.
template <class T, class F>
void run(const Tensor& in, Tensor& out, const F& f) {
  const int64_t from_width = in.size(1), width = out.size(1);
  const T* from_data = in.const_data_ptr<T>();
  T* to_data = out.mutable_data_ptr<T>();
  at::parallel_for(0, in.size(0), std::max<int64_t>(1, 8192 / width), [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      const T* from = from_data + n * from_width;
      T* to = to_data + n * width;
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

Tensor apply(const Tensor& in, int64_t width, Activation activation) {
  Tensor out = at::empty({in.size(0), width}, in.options());
  AT_DISPATCH_FLOATING_TYPES(in.scalar_type(), "activation",
                             [&] { dispatch(activation, [&](auto f) { run<scalar_t>(in, out, f); }); });
  return out;
}

}  // namespace

Tensor activate(const Tensor& x, Activation activation) { return apply(x, x.size(1), activation); }
Tensor gated_activate(const Tensor& gate_up, Activation activation) {
  return apply(gate_up, gate_up.size(1) / 2, activation);
}

Tensor activate_backward(const Tensor& dy, const Tensor& x, Activation activation) {
  switch (activation) {
    case Activation::silu:
      return at::silu_backward(dy, x);
    case Activation::relu:
      return at::threshold_backward(dy, x, 0);
    case Activation::gelu:
      return at::gelu_backward(dy, x, "none");
    case Activation::gelu_tanh:
      return at::gelu_backward(dy, x, "tanh");
  }
  DSE_CHECK(false, "activation");
}

}  // namespace dsengine
