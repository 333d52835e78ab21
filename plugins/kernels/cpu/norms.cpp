// RMSNorm (Zhang and Sennrich 2019) and LayerNorm (Ba et al. 2016), a row at a time; gradients of their weights are
// sums over rows, in order.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "norms.cpp"
#include "targets.h"
// after targets.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <cmath>

#include "tile-inl.h"

#ifndef DSE_CPU_NORM_ROWS
#define DSE_CPU_NORM_ROWS
namespace cpu {

// Rows [N, width] of a call; what an operation has none of is null.
struct NormRows {
  int64_t width;
  float eps, shift;
  const float *dy, *x, *w, *b;
  const float *mean, *rstd;  // [N], of the forward
  float *y, *new_mean, *new_rstd, *dx, *dw, *db;
};

}  // namespace cpu
#endif

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

HWY_INLINE V weight(const NormRows& r, int64_t i, int64_t left) {
  return r.w ? hn::Add(load_some(r.w + i, left), hn::Set(d, r.shift)) : hn::Set(d, 1.0f);
}

void rms_norm(const NormRows& r, int64_t first, int64_t last) {
  for (int64_t n = first; n < last; ++n) {
    const float* x = r.x + n * r.width;
    const float squares = sum_of(r.width, [&](int64_t i, int64_t left) HWY_ATTR {
      const V v = load_some(x + i, left);
      return hn::Mul(v, v);
    });
    const float rstd = 1.0f / std::sqrt(squares / float(r.width) + r.eps);
    r.new_rstd[n] = rstd;
    each_vector(r.width, [&](int64_t i, int64_t left, int64_t) HWY_ATTR {
      const V v = hn::Mul(load_some(x + i, left), hn::Set(d, rstd));
      store_some(hn::Mul(v, weight(r, i, left)), r.y + n * r.width + i, left);
    });
  }
}

void rms_norm_backward(const NormRows& r, int64_t first, int64_t last) {
  for (int64_t n = first; n < last; ++n) {
    const float *x = r.x + n * r.width, *dy = r.dy + n * r.width, rstd = r.rstd[n];
    const auto slope = [&](int64_t i, int64_t left)
                           HWY_ATTR { return hn::Mul(load_some(dy + i, left), weight(r, i, left)); };
    const float product = sum_of(
        r.width, [&](int64_t i, int64_t left) HWY_ATTR { return hn::Mul(slope(i, left), load_some(x + i, left)); });
    const float pull = product * rstd * rstd * rstd / float(r.width);
    each_vector(r.width, [&](int64_t i, int64_t left, int64_t) HWY_ATTR {
      const V own = hn::Mul(slope(i, left), hn::Set(d, rstd));
      store_some(hn::NegMulAdd(load_some(x + i, left), hn::Set(d, pull), own), r.dx + n * r.width + i, left);
    });
  }
}

void layer_norm(const NormRows& r, int64_t first, int64_t last) {
  for (int64_t n = first; n < last; ++n) {
    const float* x = r.x + n * r.width;
    const float mean =
        sum_of(r.width, [&](int64_t i, int64_t left) HWY_ATTR { return load_some(x + i, left); }) / float(r.width);
    const auto centred = [&](int64_t i, int64_t left)
                             HWY_ATTR { return hn::Sub(load_some(x + i, left), hn::Set(d, mean)); };
    const float squares = sum_of(r.width, [&](int64_t i, int64_t left) HWY_ATTR {
      const V v = centred(i, left);
      return hn::Mul(v, v);
    });
    const float rstd = 1.0f / std::sqrt(squares / float(r.width) + r.eps);
    r.new_mean[n] = mean, r.new_rstd[n] = rstd;
    each_vector(r.width, [&](int64_t i, int64_t left, int64_t) HWY_ATTR {
      V v = hn::Mul(hn::Mul(centred(i, left), hn::Set(d, rstd)), weight(r, i, left));
      if (r.b) v = hn::Add(v, load_some(r.b + i, left));
      store_some(v, r.y + n * r.width + i, left);
    });
  }
}

void layer_norm_backward(const NormRows& r, int64_t first, int64_t last) {
  for (int64_t n = first; n < last; ++n) {
    const float *x = r.x + n * r.width, *dy = r.dy + n * r.width;
    const V mean = hn::Set(d, r.mean[n]), rstd = hn::Set(d, r.rstd[n]);
    const auto slope = [&](int64_t i, int64_t left)
                           HWY_ATTR { return hn::Mul(load_some(dy + i, left), weight(r, i, left)); };
    const auto normed = [&](int64_t i, int64_t left)
                            HWY_ATTR { return hn::Mul(hn::Sub(load_some(x + i, left), mean), rstd); };
    const float pull =
        sum_of(r.width, [&](int64_t i, int64_t left) HWY_ATTR { return hn::Mul(slope(i, left), normed(i, left)); }) /
        float(r.width);
    const float shift = sum_of(r.width, slope) / float(r.width);
    each_vector(r.width, [&](int64_t i, int64_t left, int64_t) HWY_ATTR {
      const V own = hn::NegMulAdd(normed(i, left), hn::Set(d, pull), hn::Sub(slope(i, left), hn::Set(d, shift)));
      store_some(hn::Mul(own, rstd), r.dx + n * r.width + i, left);
    });
  }
}

// Of columns [first, last), over all rows: dw, with mean null of an RMSNorm, and db.
void norm_weight_backward(const NormRows& r, int64_t rows, int64_t first, int64_t last) {
  for (int64_t n = 0; n < rows; ++n) {
    const float *x = r.x + n * r.width, *dy = r.dy + n * r.width;
    const V mean = hn::Set(d, r.mean ? r.mean[n] : 0.0f), rstd = hn::Set(d, r.rstd[n]);
    for (int64_t i = first; i < last; i += kLanes) {
      const int64_t left = last - i;
      const V g = load_some(dy + i, left);
      if (r.dw) {
        const V normed = hn::Mul(hn::Sub(load_some(x + i, left), mean), rstd);
        store_some(hn::MulAdd(g, normed, load_some(r.dw + i, left)), r.dw + i, left);
      }
      if (r.db) store_some(hn::Add(load_some(r.db + i, left), g), r.db + i, left);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels.h"

namespace cpu {

HWY_EXPORT(rms_norm);
HWY_EXPORT(rms_norm_backward);
HWY_EXPORT(layer_norm);
HWY_EXPORT(layer_norm_backward);
HWY_EXPORT(norm_weight_backward);

namespace {

using dse::Op;

template <Op op>
struct Norm {
  static constexpr dse::KernelTraits traits{.op = op, .priority = 1, .row_invariant = true};
  explicit Norm(const dse_operation& o) : width(o.in), eps(float(o.eps)), shift(float(o.shift)) {
    check_instruction_set();
  }

  void run(const dse::Call<op>& call) const {
    NormRows r{};
    r.width = width, r.eps = eps, r.shift = shift;
    r.x = call.template in<float>("x");
    if constexpr (op == Op::rms_norm) {
      r.w = call.template in<float>("w");
      r.y = call.template out<float>("y"), r.new_rstd = call.template out<float>("rstd");
      by_rows(call.rows(), r, HWY_DYNAMIC_DISPATCH(rms_norm));
    } else if constexpr (op == Op::layer_norm) {
      r.w = call.template in<float>("w"), r.b = call.template in<float>("b");
      r.y = call.template out<float>("y");
      r.new_mean = call.template out<float>("mean"), r.new_rstd = call.template out<float>("rstd");
      by_rows(call.rows(), r, HWY_DYNAMIC_DISPATCH(layer_norm));
    } else {
      r.dy = call.template in<float>("dy"), r.rstd = call.template in<float>("rstd");
      if constexpr (op >= Op::layer_norm) r.mean = call.template in<float>("mean");
      run_backward(call, r);
    }
  }

  void run_backward(const dse::Call<op>& call, NormRows& r) const {
    if constexpr (op == Op::rms_norm_weight_backward || op == Op::layer_norm_weight_backward) {
      r.dw = call.template out<float>("dw");
      if constexpr (op == Op::layer_norm_weight_backward) r.db = call.template out<float>("db");
      const auto backward = HWY_DYNAMIC_DISPATCH(norm_weight_backward);
      dse::parallel_for(0, width, 64, [&](int64_t first, int64_t last) { backward(r, call.rows(), first, last); });
    } else {
      r.w = call.template in<float>("w"), r.dx = call.template out<float>("dx");
      if constexpr (op == Op::rms_norm_backward)
        by_rows(call.rows(), r, HWY_DYNAMIC_DISPATCH(rms_norm_backward));
      else
        by_rows(call.rows(), r, HWY_DYNAMIC_DISPATCH(layer_norm_backward));
    }
  }
  template <class F>
  void by_rows(int64_t rows, const NormRows& r, const F& f) const {
    const int64_t grain = std::max<int64_t>(1, 16384 / std::max<int64_t>(1, width));
    dse::parallel_for(0, rows, grain, [&](int64_t first, int64_t last) { f(r, first, last); });
  }

  int64_t width;
  float eps, shift;
};

}  // namespace

void add_norms(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<Norm<Op::rms_norm>>("cpu_rms_norm"));
  items.push_back(dse::kernel_item<Norm<Op::rms_norm_backward>>("cpu_rms_norm_backward"));
  items.push_back(dse::kernel_item<Norm<Op::rms_norm_weight_backward>>("cpu_rms_norm_weight_backward"));
  items.push_back(dse::kernel_item<Norm<Op::layer_norm>>("cpu_layer_norm"));
  items.push_back(dse::kernel_item<Norm<Op::layer_norm_backward>>("cpu_layer_norm_backward"));
  items.push_back(dse::kernel_item<Norm<Op::layer_norm_weight_backward>>("cpu_layer_norm_weight_backward"));
}

}  // namespace cpu
#endif
