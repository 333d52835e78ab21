// Nodes that take each row by itself.
#include "model/autograd/node.h"

namespace dsengine::autograd {

namespace {

struct Linear : Function<Linear> {
  static Tensor forward(AutogradContext* ctx, const ops::Linear* op, const Tensor& x, const Tensor& weight,
                        const std::optional<Tensor>& bias) {
    ctx->save_for_backward({x, weight, bias.value_or(Tensor())});
    keep(ctx, "op", op);
    return op->forward(x, weight, bias.value_or(Tensor()));
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    const auto& op = kept<ops::Linear>(ctx, "op");
    const Tensor dy = grads[0].contiguous(), &x = saved[0], &weight = saved[1];
    op.weight_backward(dy, x, grad_of(weight), grad_of(saved[2]));
    return {Tensor(), ctx->needs_input_grad(0) ? op.backward(dy, weight) : Tensor(), Tensor(), Tensor()};
  }
};

struct Embedding : Function<Embedding> {
  static Tensor forward(AutogradContext* ctx, const ops::Embedding* op, const Tensor& table, const Tensor& ids) {
    ctx->save_for_backward({table, ids});
    keep(ctx, "op", op);
    return op->forward(table, ids);
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    kept<ops::Embedding>(ctx, "op").weight_backward(grads[0].contiguous(), saved[1], grad_of(saved[0]));
    return {Tensor(), Tensor(), Tensor()};
  }
};

struct RmsNorm : Function<RmsNorm> {
  static Tensor forward(AutogradContext* ctx, const ops::RmsNorm* op, const Tensor& x, const Tensor& weight) {
    auto [y, rstd] = op->forward(x, weight);
    ctx->save_for_backward({x, weight, rstd});
    keep(ctx, "op", op);
    return y;
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    const auto& op = kept<ops::RmsNorm>(ctx, "op");
    const Tensor dy = grads[0].contiguous(), &x = saved[0], &weight = saved[1], &rstd = saved[2];
    op.weight_backward(dy, x, rstd, grad_of(weight));
    return {Tensor(), op.backward(dy, x, weight, rstd), Tensor()};
  }
};

struct LayerNorm : Function<LayerNorm> {
  static Tensor forward(AutogradContext* ctx, const ops::LayerNorm* op, const Tensor& x,
                        const std::optional<Tensor>& weight, const std::optional<Tensor>& bias) {
    const Tensor w = weight.value_or(Tensor()), b = bias.value_or(Tensor());
    auto [y, mean, rstd] = op->forward(x, w, b);
    ctx->save_for_backward({x, w, b, mean, rstd});
    keep(ctx, "op", op);
    return y;
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    const auto& op = kept<ops::LayerNorm>(ctx, "op");
    const Tensor dy = grads[0].contiguous(), &x = saved[0], &mean = saved[3], &rstd = saved[4];
    op.weight_backward(dy, x, mean, rstd, grad_of(saved[1]), grad_of(saved[2]));
    return {Tensor(), op.backward(dy, x, saved[1], mean, rstd), Tensor(), Tensor()};
  }
};

// An operation of one input, whose backward reads that input.
template <class Op>
struct OfInput : Function<OfInput<Op>> {
  static Tensor forward(AutogradContext* ctx, const Op* op, const Tensor& x) {
    ctx->save_for_backward({x});
    keep(ctx, "op", op);
    return op->forward(x);
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    return {Tensor(), kept<Op>(ctx, "op").backward(grads[0].contiguous(), ctx->get_saved_variables()[0])};
  }
};

struct Rope : Function<Rope> {
  static Tensor forward(AutogradContext* ctx, const ops::Rope* op, const Tensor& x, const Tensor& positions,
                        const Tensor& lengths) {
    ctx->save_for_backward({positions, lengths});
    keep(ctx, "op", op);
    return op->forward(x, positions, lengths);
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    return {Tensor(), kept<ops::Rope>(ctx, "op").backward(grads[0], saved[0], saved[1]), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor linear(const ops::Linear& op, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (wants_grad(x) || wants_grad(weight) || wants_grad(bias)) return Linear::apply(&op, x, weight, given(bias));
  return op.forward(x, weight, bias);
}

Tensor embedding(const ops::Embedding& op, const Tensor& table, const Tensor& ids) {
  return wants_grad(table) ? Embedding::apply(&op, table, ids) : op.forward(table, ids);
}

Tensor rms_norm(const ops::RmsNorm& op, const Tensor& x, const Tensor& weight) {
  return wants_grad(x) || wants_grad(weight) ? RmsNorm::apply(&op, x, weight) : op.forward(x, weight).y;
}

Tensor layer_norm(const ops::LayerNorm& op, const Tensor& x, const Tensor& weight, const Tensor& bias) {
  if (wants_grad(x) || wants_grad(weight)) return LayerNorm::apply(&op, x, given(weight), given(bias));
  return op.forward(x, weight, bias).y;
}

Tensor activation(const ops::Activate& op, const Tensor& x) {
  return wants_grad(x) ? OfInput<ops::Activate>::apply(&op, x) : op.forward(x);
}

Tensor gated_activation(const ops::GatedActivate& op, const Tensor& gate_up) {
  return wants_grad(gate_up) ? OfInput<ops::GatedActivate>::apply(&op, gate_up) : op.forward(gate_up);
}

Tensor rope(const ops::Rope& op, const Tensor& x, const Tensor& positions, const Tensor& lengths) {
  return wants_grad(x) ? Rope::apply(&op, x, positions, lengths) : op.forward(x, positions, lengths);
}

}  // namespace dsengine::autograd
