#include "model/operations.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cmath>

#include "base/check.h"
#include "model/activations.h"
#include "model/attention.h"

namespace dsengine {

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::Function;
using Tensors = torch::autograd::variable_list;

namespace {

constexpr int64_t kRowBlock = 8;  // BLAS gives the rows of whole blocks the same bits, whatever their number

bool wants_grad(const Tensor& a) { return at::GradMode::is_enabled() && a.defined() && a.requires_grad(); }

// The parameter's gradient buffer, or undefined where it is not trained. AccumulateGrad is bypassed: the
// caller adds in place and returns no gradient for the parameter.
Tensor grad_of(const Tensor& parameter) {
  return parameter.defined() && parameter.requires_grad() ? parameter.grad() : Tensor();
}

const Kernels& kernels_of(AutogradContext* ctx) {
  return *reinterpret_cast<const Kernels*>(ctx->saved_data["kernels"].toInt());
}
void save_kernels(AutogradContext* ctx, const Kernels* kernels) {
  ctx->saved_data["kernels"] = int64_t(reinterpret_cast<intptr_t>(kernels));
}

Tensor run_linear(const Kernels& kernels, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (kernels.has("linear")) {
    Tensor y = at::empty({x.size(0), weight.size(0)}, x.options());
    if (kernels.run("linear", {x, weight, bias}, {y})) return y;
  }
  return reference_linear(x, weight, bias);
}

struct Linear : Function<Linear> {
  static Tensor forward(AutogradContext* ctx, const Kernels* kernels, const Tensor& x, const Tensor& weight,
                        const std::optional<Tensor>& given_bias) {
    const Tensor bias = given_bias.value_or(Tensor());
    ctx->save_for_backward({x, weight, bias});
    return run_linear(*kernels, x, weight, bias);
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    const auto saved = ctx->get_saved_variables();
    const Tensor dy = grads[0].contiguous(), &x = saved[0], &weight = saved[1], &bias = saved[2];
    at::NoGradGuard no_grad;
    if (Tensor g = grad_of(weight); g.defined()) g.addmm_(dy.t(), x);
    if (Tensor g = grad_of(bias); g.defined()) g.add_(dy.sum(0));
    return {Tensor(), ctx->needs_input_grad(0) ? dy.mm(weight) : Tensor(), Tensor(), Tensor()};
  }
};

struct Embedding : Function<Embedding> {
  static Tensor forward(AutogradContext* ctx, const Tensor& table, const Tensor& rows) {
    ctx->save_for_backward({table, rows});
    return table.index_select(0, rows);
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    const auto saved = ctx->get_saved_variables();
    at::NoGradGuard no_grad;
    Tensor g = grad_of(saved[0]);
    const Tensor dy = grads[0].contiguous();
    // Rows are added one after another, in the order of the batch: the sum of a repeated token is fixed.
    AT_DISPATCH_FLOATING_TYPES(dy.scalar_type(), "embedding", [&] {
      const int64_t width = dy.size(1);
      const auto* row = saved[1].const_data_ptr<int64_t>();
      const auto* from = dy.const_data_ptr<scalar_t>();
      auto* to = g.mutable_data_ptr<scalar_t>();
      for (int64_t n = 0; n < dy.size(0); ++n)
        for (int64_t i = 0; i < width; ++i) to[row[n] * width + i] += from[n * width + i];
    });
    return {Tensor(), Tensor()};
  }
};

template <class T>
void rms_norm_rows(const Tensor& x, const Tensor& w, double eps, Tensor& y, Tensor& rstd) {
  const int64_t width = x.size(1);
  const T *xs = x.const_data_ptr<T>(), *ws = w.const_data_ptr<T>();
  T *ys = y.mutable_data_ptr<T>(), *rs = rstd.mutable_data_ptr<T>();
  at::parallel_for(0, x.size(0), 32, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      const T* a = xs + n * width;
      T sum = 0;
#pragma omp simd reduction(+ : sum)
      for (int64_t i = 0; i < width; ++i) sum += a[i] * a[i];
      const T r = T(1) / std::sqrt(sum / T(width) + T(eps));
      rs[n] = r;
      for (int64_t i = 0; i < width; ++i) ys[n * width + i] = a[i] * r * ws[i];
    }
  });
}

template <class T>
void rms_norm_backward_rows(const Tensor& dy, const Tensor& x, const Tensor& w, const Tensor& rstd, Tensor& dx) {
  const int64_t width = x.size(1);
  const T *gs = dy.const_data_ptr<T>(), *xs = x.const_data_ptr<T>(), *ws = w.const_data_ptr<T>();
  const T* rs = rstd.const_data_ptr<T>();
  T* ds = dx.mutable_data_ptr<T>();
  at::parallel_for(0, x.size(0), 32, [&](int64_t first, int64_t last) {
    for (int64_t n = first; n < last; ++n) {
      const T *a = xs + n * width, *g = gs + n * width, r = rs[n];
      T inner = 0;
#pragma omp simd reduction(+ : inner)
      for (int64_t i = 0; i < width; ++i) inner += g[i] * ws[i] * a[i];
      const T pull = inner * r * r * r / T(width);
      for (int64_t i = 0; i < width; ++i) ds[n * width + i] = g[i] * ws[i] * r - a[i] * pull;
    }
  });
}

void run_rms_norm(const Kernels& kernels, const Tensor& x, const Tensor& w, double eps, bool train, Tensor& y,
                  Tensor& rstd) {
  y = at::empty_like(x);
  rstd = at::empty({x.size(0)}, x.options());
  if (kernels.has("rms_norm") && (!train || kernels.has("rms_norm.backward")) &&
      kernels.run("rms_norm", {x, w}, {y, rstd}, {{"eps", eps}}))
    return;
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "rms_norm", [&] { rms_norm_rows<scalar_t>(x, w, eps, y, rstd); });
}

Tensor shifted(const Tensor& weight, double shift) { return shift == 0 ? weight : weight.detach() + shift; }

struct RmsNorm : Function<RmsNorm> {
  static Tensor forward(AutogradContext* ctx, const Kernels* kernels, const Tensor& x, const Tensor& w, double eps,
                        double shift) {
    Tensor y, rstd;
    run_rms_norm(*kernels, x, shifted(w, shift), eps, true, y, rstd);
    ctx->save_for_backward({x, w, rstd});
    ctx->saved_data["shift"] = shift;
    save_kernels(ctx, kernels);
    return y;
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    const auto saved = ctx->get_saved_variables();
    at::NoGradGuard no_grad;
    const Tensor dy = grads[0].contiguous(), &x = saved[0], &rstd = saved[2];
    const Tensor w = shifted(saved[1], ctx->saved_data["shift"].toDouble());
    Tensor dx = at::empty_like(x), g = grad_of(saved[1]);
    const auto& kernels = kernels_of(ctx);
    Tensor dw = kernels.has("rms_norm.backward") ? at::empty_like(w) : Tensor();
    if (dw.defined() && kernels.run("rms_norm.backward", {dy, x, w, rstd}, {dx, dw})) {
      if (g.defined()) g.add_(dw);
    } else {
      AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "rms_norm",
                                 [&] { rms_norm_backward_rows<scalar_t>(dy, x, w, rstd, dx); });
      if (g.defined()) g.add_((dy * x).mul_(rstd.unsqueeze(1)).sum(0));
    }
    return {Tensor(), dx, Tensor(), Tensor(), Tensor()};
  }
};

struct LayerNorm : Function<LayerNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const std::optional<Tensor>& weight,
                        const std::optional<Tensor>& bias, double eps) {
    const Tensor w = weight.value_or(Tensor()), b = bias.value_or(Tensor());
    auto [y, mean, rstd] = at::native_layer_norm(x, {x.size(1)}, w, b, eps);
    ctx->save_for_backward({x, w, b, mean, rstd});
    return y;
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    const auto s = ctx->get_saved_variables();
    at::NoGradGuard no_grad;
    auto [dx, dw, db] = at::native_layer_norm_backward(grads[0].contiguous(), s[0], {s[0].size(1)}, s[3], s[4], s[1],
                                                       s[2], {true, grad_of(s[1]).defined(), grad_of(s[2]).defined()});
    if (Tensor g = grad_of(s[1]); g.defined()) g.add_(dw);
    if (Tensor g = grad_of(s[2]); g.defined()) g.add_(db);
    return {dx, Tensor(), Tensor(), Tensor()};
  }
};

struct Activate : Function<Activate> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, int64_t activation) {
    ctx->save_for_backward({x});
    ctx->saved_data["activation"] = activation;
    return activate(x, Activation(activation));
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    return {
        activate_backward(grads[0], ctx->get_saved_variables()[0], Activation(ctx->saved_data["activation"].toInt())),
        Tensor()};
  }
};

Tensor run_gated(const Kernels& kernels, const Tensor& gate_up, Activation activation, bool train) {
  const int64_t width = gate_up.size(1) / 2;
  if (kernels.has("gated_activation") && (!train || kernels.has("gated_activation.backward"))) {
    Tensor y = at::empty({gate_up.size(0), width}, gate_up.options());
    if (kernels.run("gated_activation", {gate_up}, {y}, {{"activation", double(activation)}})) return y;
  }
  return gated_activate(gate_up, activation);
}

struct GatedActivation : Function<GatedActivation> {
  static Tensor forward(AutogradContext* ctx, const Kernels* kernels, const Tensor& gate_up, int64_t activation) {
    ctx->save_for_backward({gate_up});
    ctx->saved_data["activation"] = activation;
    save_kernels(ctx, kernels);
    return run_gated(*kernels, gate_up, Activation(activation), true);
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto activation = Activation(ctx->saved_data["activation"].toInt());
    const Tensor gate_up = ctx->get_saved_variables()[0], dy = grads[0].contiguous();
    const int64_t width = gate_up.size(1) / 2;
    Tensor d = at::empty_like(gate_up);
    const auto& kernels = kernels_of(ctx);
    if (kernels.has("gated_activation.backward") &&
        kernels.run("gated_activation.backward", {dy, gate_up}, {d}, {{"activation", double(activation)}}))
      return {Tensor(), d, Tensor()};
    const Tensor gate = gate_up.narrow(1, 0, width).contiguous(), up = gate_up.narrow(1, width, width);
    d.narrow(1, 0, width).copy_(activate_backward(dy * up, gate, activation));
    d.narrow(1, width, width).copy_(activate(gate, activation).mul_(dy));
    return {Tensor(), d, Tensor()};
  }
};

// Rotation by +angle forward, by -angle backward; heads past `heads` are copied.
template <class T>
void turn(const Tensor& x, Tensor& y, int64_t heads, const int64_t* positions, const int64_t* lengths,
          const RopeSpec& rope, int sign) {
  const int64_t all = x.size(1), d = x.size(2), half = int64_t(rope.frequencies.size());
  const T* from = x.const_data_ptr<T>();
  T* to = y.mutable_data_ptr<T>();
  at::parallel_for(0, x.size(0), 64, [&](int64_t first, int64_t last) {
    std::vector<T> cosine(half), sine(half);
    for (int64_t n = first; n < last; ++n) {
      const auto& frequencies = lengths && lengths[n] > rope.long_after ? rope.long_frequencies : rope.frequencies;
      for (int64_t i = 0; i < half; ++i) {  // the angle is rounded to float32, as Hugging Face computes it
        const float angle = float(positions[n]) * frequencies[i];
        cosine[i] = T(std::cos(angle) * rope.amplitude), sine[i] = T(std::sin(angle) * rope.amplitude) * T(sign);
      }
      for (int64_t h = 0; h < all; ++h) {
        const T* a = from + (n * all + h) * d;
        T* b = to + (n * all + h) * d;
        const int64_t turned = h < heads ? half : 0;
        for (int64_t i = 0; i < turned; ++i) {
          b[i] = a[i] * cosine[i] - a[i + half] * sine[i];
          b[i + half] = a[i + half] * cosine[i] + a[i] * sine[i];
        }
        std::copy(a + 2 * turned, a + d, b + 2 * turned);
      }
    }
  });
}

Tensor run_rope(const Tensor& x, int64_t heads, const Tensor& positions, const Tensor& lengths, const RopeSpec& rope,
                int sign) {
  const Tensor from = x.contiguous();
  Tensor y = at::empty_like(from);
  const int64_t* length = rope.long_frequencies.empty() ? nullptr : lengths.const_data_ptr<int64_t>();
  AT_DISPATCH_FLOATING_TYPES(x.scalar_type(), "rope", [&] {
    turn<scalar_t>(from, y, heads, positions.const_data_ptr<int64_t>(), length, rope, sign);
  });
  return y;
}

struct Rotate : Function<Rotate> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, int64_t heads, const Tensor& positions,
                        const std::optional<Tensor>& lengths, const RopeSpec* rope) {
    ctx->save_for_backward({positions, lengths.value_or(Tensor())});
    ctx->saved_data["heads"] = heads;
    ctx->saved_data["rope"] = int64_t(reinterpret_cast<intptr_t>(rope));  // lives in the model's graph
    return run_rope(x, heads, positions, lengths.value_or(Tensor()), *rope, 1);
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto* rope = reinterpret_cast<const RopeSpec*>(ctx->saved_data["rope"].toInt());
    const auto saved = ctx->get_saved_variables();
    return {run_rope(grads[0], ctx->saved_data["heads"].toInt(), saved[0], saved[1], *rope, -1), Tensor(), Tensor(),
            Tensor(), Tensor()};
  }
};

RaggedAttention ragged(const Tensor& q, const Tensor& k, const Tensor& v, const int64_t* offsets, int64_t sequences,
                       const AttentionScores& scores) {
  return {.q = q, .offsets = offsets, .sequences = sequences, .scores = scores, .k = k, .v = v};
}

struct Attend : Function<Attend> {
  static Tensor forward(AutogradContext* ctx, const Tensor& q, const Tensor& k, const Tensor& v,
                        std::vector<int64_t> offsets, AttentionScores scores) {
    Tensor out = at::empty(q.sizes(), q.options()), lse = at::empty({q.size(0), q.size(1)}, q.options());
    attention_forward(ragged(q, k, v, offsets.data(), int64_t(offsets.size()) - 1, scores), out, lse);
    ctx->save_for_backward({q, k, v, out, lse});
    ctx->saved_data["offsets"] = std::move(offsets);
    ctx->saved_data["scale"] = scores.scale;
    ctx->saved_data["window"] = scores.window;
    ctx->saved_data["softcap"] = scores.softcap;
    return out;
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto s = ctx->get_saved_variables();
    auto& data = ctx->saved_data;
    const auto offsets = data["offsets"].toIntVector();
    const AttentionScores scores{data["scale"].toDouble(), data["window"].toInt(), data["softcap"].toDouble()};
    Tensor dq = at::empty(s[0].sizes(), s[0].options()), dk = at::empty(s[1].sizes(), s[1].options());
    Tensor dv = at::empty(s[2].sizes(), s[2].options());
    attention_backward(ragged(s[0], s[1], s[2], offsets.data(), int64_t(offsets.size()) - 1, scores), s[3], s[4],
                       grads[0].contiguous(), dq, dk, dv);
    return {dq, dk, dv, Tensor(), Tensor()};
  }
};

}  // namespace

Tensor reference_linear(const Tensor& x, const Tensor& weight, const Tensor& bias) {
  const int64_t rows = x.size(0), missing = (kRowBlock - rows % kRowBlock) % kRowBlock;
  Tensor whole = x;
  if (missing > 0) {
    whole = at::empty({rows + missing, x.size(1)}, x.options());
    whole.narrow(0, 0, rows).copy_(x);
    whole.narrow(0, rows, missing).zero_();
  }
  Tensor y = at::mm(whole, weight.t()).narrow(0, 0, rows);
  return bias.defined() ? y.add_(bias) : y;
}

Tensor Operations::linear(const Tensor& x, const Tensor& weight, const Tensor& bias) const {
  if (wants_grad(x) || wants_grad(weight) || wants_grad(bias))
    return Linear::apply(kernels_, x, weight, bias.defined() ? std::optional(bias) : std::nullopt);
  return run_linear(*kernels_, x, weight, bias);
}

Tensor Operations::embedding(const Tensor& table, const Tensor& rows) const {
  return wants_grad(table) ? Embedding::apply(table, rows) : table.index_select(0, rows);
}

Tensor Operations::rms_norm(const Tensor& x, const Tensor& weight, double eps, double shift) const {
  if (wants_grad(x) || wants_grad(weight)) return RmsNorm::apply(kernels_, x, weight, eps, shift);
  Tensor y, rstd;
  run_rms_norm(*kernels_, x, shifted(weight, shift), eps, false, y, rstd);
  return y;
}

Tensor Operations::layer_norm(const Tensor& x, const Tensor& weight, const Tensor& bias, double eps) const {
  const auto given = [](const Tensor& t) { return t.defined() ? std::optional(t) : std::nullopt; };
  if (wants_grad(x) || wants_grad(weight)) return LayerNorm::apply(x, given(weight), given(bias), eps);
  return std::get<0>(at::native_layer_norm(x, {x.size(1)}, weight, bias, eps));
}

Tensor Operations::activation(const Tensor& x, Activation activation) const {
  return wants_grad(x) ? Activate::apply(x, int64_t(activation)) : activate(x, activation);
}

Tensor Operations::gated_activation(const Tensor& gate_up, Activation activation) const {
  return wants_grad(gate_up) ? GatedActivation::apply(kernels_, gate_up, int64_t(activation))
                             : run_gated(*kernels_, gate_up, activation, false);
}

Tensor Operations::rope(const Tensor& x, int64_t heads, const Tensor& positions, const Tensor& lengths,
                        const RopeSpec& rope) const {
  if (!wants_grad(x)) return run_rope(x, heads, positions, lengths, rope, 1);
  return Rotate::apply(x, heads, positions, lengths.defined() ? std::optional(lengths) : std::nullopt, &rope);
}

Tensor Operations::attention(const Tensor& q, const Tensor& k, const Tensor& v, const std::vector<int64_t>& offsets,
                             const AttentionScores& scores) const {
  if (wants_grad(q) || wants_grad(k)) return Attend::apply(q, k, v, offsets, scores);
  Tensor out = at::empty(q.sizes(), q.options()), no_lse;
  attention_forward(ragged(q, k, v, offsets.data(), int64_t(offsets.size()) - 1, scores), out, no_lse);
  return out;
}

}  // namespace dsengine
