#include "base/check.h"
#include "model/autograd/node.h"

namespace dsengine::autograd {

namespace {

struct LogProbNode : Function<LogProbNode> {
  static Tensors forward(AutogradContext* ctx, const ops::LogProb* op, const Tensor& hidden, const Tensor& head,
                         const Tensor& targets, double temperature, bool want_entropy) {
    auto [logp, lse, entropy] = op->forward(hidden, head, targets, temperature, want_entropy);
    ctx->save_for_backward({hidden, head, targets, lse, entropy});
    ctx->saved_data["temperature"] = temperature;
    keep(ctx, "op", op);
    return {logp, want_entropy ? entropy : at::zeros({0}, hidden.options())};
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto s = ctx->get_saved_variables();
    const Tensor &hidden = s[0], &head = s[1], &targets = s[2], &lse = s[3], &entropy = s[4];
    const Tensor d_logp = grads[0].defined() ? grads[0] : at::zeros_like(lse);
    const Tensor d_entropy = entropy.defined() ? grads[1] : Tensor();
    const Tensor d_hidden =
        kept<ops::LogProb>(ctx, "op").backward(d_logp, d_entropy, hidden, head, targets, {{}, lse, entropy},
                                               ctx->saved_data["temperature"].toDouble(), grad_of(head));
    return {Tensor(), d_hidden, Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

LogProb log_prob(const ops::LogProb& op, const Tensor& hidden, const Tensor& head, const Tensor& targets,
                 double temperature, bool entropy) {
  DSE_CHECK(hidden.size(0) == targets.size(0), "{} rows, {} targets", hidden.size(0), targets.size(0));
  if (!wants_grad(hidden) && !wants_grad(head)) {
    const auto result = op.forward(hidden, head, targets, temperature, entropy);
    return {result.logp, result.entropy};
  }
  const auto out = LogProbNode::apply(&op, hidden, head, targets, temperature, entropy);
  return {out[0], entropy ? out[1] : Tensor()};
}

}  // namespace dsengine::autograd
