// Nodes that take each row by itself.
#include "model/autograd/node.h"

namespace dsengine::autograd {

namespace {

struct Linear : Function<Linear> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const ops::Linear* op, const Parameter& weight,
                        const Parameter& bias) {
    ctx->save_for_backward({x});
    keep(ctx, op, weight, bias);
    return op->forward(x, weight.value(), bias.value());
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto k = kept<ops::Linear>(ctx);
    const Tensor dy = grads[0].contiguous(), x = ctx->get_saved_variables()[0];
    k->op->weight_backward(dy, x, k->weight.grad(), k->bias.grad());
    return {k->op->backward(dy, k->weight.value()), Tensor(), Tensor(), Tensor()};
  }
};

struct LinearWide : Function<LinearWide> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const ops::Linear* op, const Parameter& weight) {
    ctx->save_for_backward({x});
    keep(ctx, op, weight);
    return op->forward_wide(x, weight.value());
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto k = kept<ops::Linear>(ctx);
    const Tensor x = ctx->get_saved_variables()[0], dy = grads[0].to(x.scalar_type()).contiguous();
    k->op->weight_backward(dy, x, k->weight.grad(), {});
    return {k->op->backward(dy, k->weight.value()), Tensor(), Tensor()};
  }
};

struct LinearBeside : Function<LinearBeside> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Tensor& residual, const ops::Linear* op,
                        const Parameter& weight, const Parameter& bias) {
    ctx->save_for_backward({x});
    keep(ctx, op, weight, bias);
    return op->forward(x, weight.value(), bias.value(), residual);
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    const Tensor dx = Linear::backward(ctx, grads)[0];
    return {dx, grads[0], Tensor(), Tensor(), Tensor()};
  }
};

struct Embedding : Function<Embedding> {
  static Tensor forward(AutogradContext* ctx, const Tensor&, const ops::Embedding* op, const Parameter& table,
                        const Tensor& ids) {
    ctx->save_for_backward({ids});
    keep(ctx, op, table);
    return op->forward(table.value(), ids);
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto k = kept<ops::Embedding>(ctx);
    if (k->weight.trained())
      k->op->weight_backward(grads[0].contiguous(), ctx->get_saved_variables()[0], k->weight.grad());
    return {Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

struct RmsNorm : Function<RmsNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const ops::RmsNorm* op, const Parameter& weight) {
    auto [y, rstd] = op->forward(x, weight.value());
    ctx->save_for_backward({x, rstd});
    keep(ctx, op, weight);
    return y;
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    const auto k = kept<ops::RmsNorm>(ctx);
    const Tensor dy = grads[0].contiguous(), &x = saved[0], &rstd = saved[1];
    k->op->weight_backward(dy, x, rstd, k->weight.grad());
    return {k->op->backward(dy, x, k->weight.value(), rstd), Tensor(), Tensor()};
  }
};

struct LayerNorm : Function<LayerNorm> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const ops::LayerNorm* op, const Parameter& weight,
                        const Parameter& bias) {
    auto [y, mean, rstd] = op->forward(x, weight.value(), bias.value());
    ctx->save_for_backward({x, mean, rstd});
    keep(ctx, op, weight, bias);
    return y;
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    const auto k = kept<ops::LayerNorm>(ctx);
    const Tensor dy = grads[0].contiguous(), &x = saved[0], &mean = saved[1], &rstd = saved[2];
    k->op->weight_backward(dy, x, mean, rstd, k->weight.grad(), k->bias.grad());
    return {k->op->backward(dy, x, k->weight.value(), mean, rstd), Tensor(), Tensor(), Tensor()};
  }
};

// An operation of one input, whose backward reads that input.
template <class Op>
struct OfInput : Function<OfInput<Op>> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Op* op) {
    ctx->save_for_backward({x});
    keep(ctx, op);
    return op->forward(x);
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    return {kept<Op>(ctx)->op->backward(grads[0].contiguous(), ctx->get_saved_variables()[0]), Tensor()};
  }
};

struct Rope : Function<Rope> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const ops::Rope* op, const Tensor& positions,
                        const Tensor& lengths) {
    ctx->save_for_backward({positions, lengths});
    keep(ctx, op);
    return op->forward(x, positions, lengths);
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto saved = ctx->get_saved_variables();
    return {kept<ops::Rope>(ctx)->op->backward(grads[0], saved[0], saved[1]), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

Tensor linear_wide(const ops::Linear& op, const Tensor& x, const Parameter& weight) {
  return wants_grad(x) ? LinearWide::apply(x, &op, weight) : op.forward_wide(x, weight.value());
}

Tensor linear(const ops::Linear& op, const Tensor& x, const Parameter& weight, const Parameter& bias,
              const Tensor& residual) {
  if (residual.defined() && (wants_grad(x) || wants_grad(residual)))
    return LinearBeside::apply(x, residual, &op, weight, bias);
  return wants_grad(x) ? Linear::apply(x, &op, weight, bias) : op.forward(x, weight.value(), bias.value(), residual);
}

Tensor embedding(const ops::Embedding& op, const Parameter& table, const Tensor& ids, const Tensor& anchor) {
  return wants_grad(anchor) ? Embedding::apply(anchor, &op, table, ids) : op.forward(table.value(), ids);
}

Tensor rms_norm(const ops::RmsNorm& op, const Tensor& x, const Parameter& weight) {
  return wants_grad(x) ? RmsNorm::apply(x, &op, weight) : op.forward(x, weight.value()).y;
}

Tensor layer_norm(const ops::LayerNorm& op, const Tensor& x, const Parameter& weight, const Parameter& bias) {
  return wants_grad(x) ? LayerNorm::apply(x, &op, weight, bias) : op.forward(x, weight.value(), bias.value()).y;
}

Tensor activation(const ops::Activate& op, const Tensor& x) {
  return wants_grad(x) ? OfInput<ops::Activate>::apply(x, &op) : op.forward(x);
}

Tensor gated_activation(const ops::GatedActivate& op, const Tensor& gate_up) {
  return wants_grad(gate_up) ? OfInput<ops::GatedActivate>::apply(gate_up, &op) : op.forward(gate_up);
}

Tensor rope(const ops::Rope& op, const Tensor& x, const Tensor& positions, const Tensor& lengths) {
  return wants_grad(x) ? Rope::apply(x, &op, positions, lengths) : op.forward(x, positions, lengths);
}

}  // namespace dsengine::autograd
