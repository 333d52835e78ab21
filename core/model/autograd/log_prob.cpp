#include "base/check.h"
#include "model/autograd/node.h"

namespace dsengine::autograd {

namespace {

struct LogProbNode : Function<LogProbNode> {
  static Tensors forward(AutogradContext* ctx, const Tensor& hidden, const ops::LogProb* op, const Parameter& head,
                         const Tensor& targets, double temperature, bool want_entropy) {
    auto [logp, lse, entropy] = op->forward(hidden, head.value(), targets, temperature, want_entropy);
    ctx->save_for_backward({hidden, targets, lse, entropy});
    ctx->saved_data["temperature"] = temperature;
    ctx->set_materialize_grads(false);  // an entropy that nobody asks the slope of costs nothing
    keep(ctx, op, head);
    return {logp, want_entropy ? entropy : at::zeros({0}, hidden.options())};
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    at::NoGradGuard no_grad;
    const auto s = ctx->get_saved_variables();
    const Tensor &hidden = s[0], &targets = s[1], &lse = s[2], &entropy = s[3];
    const Tensor d_logp = grads[0].defined() ? grads[0].contiguous() : at::zeros_like(lse);
    const Tensor d_entropy = entropy.defined() && grads[1].defined() ? grads[1].contiguous() : Tensor();
    const auto k = kept<ops::LogProb>(ctx);
    const Tensor d_hidden = k->op->backward(d_logp, d_entropy, hidden, k->weight.value(), targets, {{}, lse, entropy},
                                            ctx->saved_data["temperature"].toDouble(), k->weight.grad());
    return {d_hidden, Tensor(), Tensor(), Tensor(), Tensor(), Tensor()};
  }
};

}  // namespace

LogProb log_prob(const ops::LogProb& op, const Tensor& hidden, const Parameter& head, const Tensor& targets,
                 double temperature, bool entropy) {
  DSE_CHECK(hidden.size(0) == targets.size(0), "{} rows, {} targets", hidden.size(0), targets.size(0));
  if (!wants_grad(hidden)) {
    const auto result = op.forward(hidden, head.value(), targets, temperature, entropy);
    return {result.logp, result.entropy};
  }
  const auto out = LogProbNode::apply(hidden, &op, head, targets, temperature, entropy);
  return {out[0], entropy ? out[1] : Tensor()};
}

}  // namespace dsengine::autograd
