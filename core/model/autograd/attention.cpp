#include "model/autograd/node.h"

namespace dsengine::autograd {

namespace {

// Of a batch, what the backward reads: no sequence is cached there.
struct Attention : Function<Attention> {
  static Tensor forward(AutogradContext* ctx, const ops::Attention* op, const Tensor& q, const Tensor& k,
                        const Tensor& v, const Batch* batch) {
    auto [out, lse] = op->forward(q, k, v, *batch, true);
    ctx->save_for_backward({q, k, v, out, lse, batch->starts});
    keep(ctx, op);
    ctx->saved_data["offsets"] = batch->offsets;
    ctx->saved_data["longest"] = batch->longest;
    return out;
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto s = ctx->get_saved_variables();
    Batch batch;
    batch.offsets = ctx->saved_data["offsets"].toIntVector();
    batch.past.assign(batch.offsets.size() - 1, 0);
    batch.longest = ctx->saved_data["longest"].toInt();
    batch.starts = s[5];
    const auto [dq, dk, dv] =
        kept<ops::Attention>(ctx)->op->backward(grads[0].contiguous(), s[0], s[1], s[2], {s[3], s[4]}, batch);
    return {Tensor(), dq, dk, dv, Tensor()};
  }
};

}  // namespace

Tensor attention(const ops::Attention& op, const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch) {
  if (wants_grad(q)) return Attention::apply(&op, q, k, v, &batch);
  return op.forward(q, k, v, batch, false).out;
}

}  // namespace dsengine::autograd
