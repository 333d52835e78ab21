#include "model/executor.h"

#include <torch/csrc/autograd/autograd.h>

#include <map>

#include "base/check.h"
#include "memory/ledger.h"
#include "model/autograd/node.h"

namespace dsengine {

using at::Tensor;
using autograd::AutogradContext;
using autograd::Tensors;
using autograd::wants_grad;

namespace {

class RaggedContext : public AttentionContext {
 public:
  explicit RaggedContext(const Batch& batch) : batch_(batch) {}
  Tensor attend(const Operator&, const ops::Attention& attention, const Tensor& q, const Tensor& k,
                const Tensor& v) override {
    return autograd::attention(attention, q, k, v, batch_);
  }

 private:
  const Batch& batch_;
};

void keep(AutogradContext* ctx, const Executor* executor, size_t section) {
  ctx->saved_data["executor"] = int64_t(reinterpret_cast<intptr_t>(executor));
  ctx->saved_data["section"] = int64_t(section);
}
// Hooks are called in the backward where they were in the forward.
void keep_hooks(AutogradContext* ctx, const SectionHooks* hooks) {
  ctx->saved_data["hooks"] = int64_t(reinterpret_cast<intptr_t>(hooks));
}
void check_hooks(AutogradContext* ctx, const SectionHooks* hooks) {
  DSE_CHECK(ctx->saved_data["hooks"].toInt() == int64_t(reinterpret_cast<intptr_t>(hooks)),
            "hooks were changed between a forward and its backward");
}
const Executor& executor_of(AutogradContext* ctx) {
  return *reinterpret_cast<const Executor*>(ctx->saved_data["executor"].toInt());
}
size_t section_of(AutogradContext* ctx) { return size_t(ctx->saved_data["section"].toInt()); }

// y [N, out] of a linear whose weight's parts may alternate: the columns of the first part, then those of the next.
Tensor in_part_order(const Tensor& y, const ParamBlock& weight) {
  const int64_t g = weight.interleave, parts = int64_t(weight.parts.size());
  if (g == 0) return y;
  return y.view({y.size(0), weight.parts[0].shape[0] / g, parts, g}).transpose(1, 2).reshape(y.sizes());
}

}  // namespace

// The two ends of a section: nodes that change nothing. When the backward reaches them its streamed weights and
// offloaded gradients come and go, and the hooks are called.
struct SectionBegin : torch::autograd::Function<SectionBegin> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Executor* executor, size_t section) {
    keep(ctx, executor, section);
    keep_hooks(ctx, executor->hooks_);
    return x.view_as(x);
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    const Executor& executor = executor_of(ctx);
    check_hooks(ctx, executor.hooks_);
    if (executor.hooks_) executor.hooks_->after_backward(section_of(ctx));
    if (auto* gradients = executor.weights_.gradients.get()) gradients->take_back(section_of(ctx));
    if (auto* streamed = executor.weights_.streamed.get()) streamed->release(section_of(ctx));
    return {grads[0], Tensor(), Tensor()};
  }
};
struct SectionEnd : torch::autograd::Function<SectionEnd> {
  static Tensors forward(AutogradContext* ctx, const Tensor& x, const Tensor& y, const Executor* executor,
                         size_t section) {
    keep(ctx, executor, section);
    return {x.view_as(x), y.view_as(y)};
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    const Executor& executor = executor_of(ctx);
    if (auto* streamed = executor.weights_.streamed.get()) streamed->hold(section_of(ctx));
    if (auto* gradients = executor.weights_.gradients.get()) gradients->bring(section_of(ctx));
    if (executor.hooks_) executor.hooks_->before_backward(section_of(ctx));
    return {grads[0], grads[1], Tensor(), Tensor()};
  }
};

// Runs a section without grad, and once more with it in the backward pass, where the gradients of its
// parameters go straight into their buffers.
struct RecomputedSection : torch::autograd::Function<RecomputedSection> {
  static Tensor forward(AutogradContext* ctx, const Tensor& x, const Executor* executor, size_t section,
                        const Batch* batch) {
    ctx->save_for_backward({x, batch->tokens, batch->positions, batch->lengths, batch->starts});
    keep(ctx, executor, section);
    ctx->saved_data["offsets"] = batch->offsets;
    ctx->saved_data["past"] = batch->past;
    ctx->saved_data["longest"] = batch->longest;
    RaggedContext attention(*batch);
    return executor->run_section(section, x, *batch, attention, true, {});
  }
  static Tensors backward(AutogradContext* ctx, Tensors grads) {
    const auto saved = ctx->get_saved_variables();
    const Batch batch{.offsets = ctx->saved_data["offsets"].toIntVector(),
                      .past = ctx->saved_data["past"].toIntVector(),
                      .longest = ctx->saved_data["longest"].toInt(),
                      .tokens = saved[1],
                      .positions = saved[2],
                      .lengths = saved[3],
                      .starts = saved[4]};
    RaggedContext attention(batch);
    const Tensor x = saved[0].detach().requires_grad_(true);
    const at::AutoGradMode grad(true);
    const Tensor y = executor_of(ctx).run_section(section_of(ctx), x, batch, attention, true, {});
    torch::autograd::backward({y}, {grads[0]});
    return {x.grad(), Tensor(), Tensor(), Tensor()};
  }
};

// body(x) -> two tensors, of which the second may be undefined.
template <class Body>
auto Executor::hooked(size_t section, const Tensor& x, const Body& body, bool narrow) const {
  StreamedWeights* streamed = weights_.streamed.get();
  if (narrow && streamed && !streamed->settings().trained) streamed = nullptr;  // its vectors are here
  if (!hooks_ && !weights_.gradients && !(streamed && streamed->has(section))) return body(x);
  const StreamedWeights::Hold hold(streamed, section);
  if (hooks_) hooks_->before_forward(section);
  const bool train = wants_grad(x);
  std::pair<Tensor, Tensor> y = body(train ? SectionBegin::apply(x, this, section) : x);
  if (hooks_) hooks_->after_forward(section);
  if (!train) return y;
  const Tensor none = at::empty({0}, y.first.options());
  const Tensors ends = SectionEnd::apply(y.first, y.second.defined() ? y.second : none, this, section);
  return std::pair(ends[0], y.second.defined() ? ends[1] : Tensor());
}

void Executor::enable_training() {
  for (size_t s = 0; s <= head_section() && !first_trained_; ++s)
    for (const auto* unit : weights_.of_section(s))
      if (unit->trained()) first_trained_ = s;
  const ParamStorage& first = weights_.sections[0];
  anchor_ = at::empty({0}, first.vectors().options().dtype(first.dtype())).requires_grad_(true);
}

Tensor Executor::begin_of(size_t section, const Tensor& x) const {
  if (!at::GradMode::is_enabled() || section != first_trained_) return x;
  return section == 0 ? anchor_ : x.detach().requires_grad_(true);
}

Parameter Executor::head() const {
  return weights_.head ? Parameter(*weights_.head, 0) : Parameter(weights_.sections[0], size_t(graph_.tied_block));
}

Tensor Executor::run_attention(const Operator& op, const BoundOperator& bound, Tensor qkv, const Batch& batch,
                               const ParamStorage& unit, AttentionContext& attention) const {
  const int64_t turned = op.heads + op.kv_heads, rows = qkv.size(0);
  qkv = qkv.view({rows, op.heads + 2 * op.kv_heads, op.head_dim});
  if (bound.q_norm || bound.k_norm) {
    const auto heads = [&](int64_t first, int64_t count, const std::optional<ops::RmsNorm>& norm, int weight) {
      const Tensor part = qkv.narrow(1, first, count);
      if (!norm) return part;
      return autograd::rms_norm(*norm, part.reshape({-1, op.head_dim}).contiguous(), Parameter(unit, size_t(weight)))
          .view(part.sizes());
    };
    qkv = at::cat({heads(0, op.heads, bound.q_norm, op.q_norm), heads(op.heads, op.kv_heads, bound.k_norm, op.k_norm),
                   heads(turned, op.kv_heads, {}, -1)},
                  1);
  }
  if (bound.cached_step && !at::GradMode::is_enabled())
    if (const Tensor out = attention.step(op, *bound.cached_step, qkv); out.defined())
      return out.reshape({rows, op.heads * op.head_dim});
  if (bound.rope) qkv = autograd::rope(*bound.rope, qkv, batch.positions, batch.lengths);
  return attention
      .attend(op, *bound.attention, qkv.narrow(1, 0, op.heads), qkv.narrow(1, op.heads, op.kv_heads),
              qkv.narrow(1, turned, op.kv_heads))
      .reshape({rows, op.heads * op.head_dim});
}

bool Executor::adapts(size_t section, int weight) const {
  return weights_.adapter && weights_.adapter->adapts(section, weight);
}

Tensor Executor::run_linear(size_t section, const ops::Linear& op, const Tensor& x, int weight, int bias,
                            const Tensor& residual, bool adapted, const RolloutWeights* narrow) const {
  const ParamStorage& unit = weights_.sections[section];
  const Parameter w(unit, size_t(weight)), b = bias < 0 ? Parameter() : Parameter(unit, size_t(bias));
  const Adapter* adapter = adapted && adapts(section, weight) ? weights_.adapter.get() : nullptr;
  const Tensor beside = adapter ? Tensor() : residual;
  const Tensor y = in_part_order(
      narrow ? narrow->of(section, weight).forward(x, b.value(), beside) : autograd::linear(op, x, w, b, beside),
      graph_.sections[section].blocks[size_t(weight)]);
  if (!adapter) return y;
  const Tensor sum = adapter->add(section, weight, x, y);
  return residual.defined() ? sum + residual : sum;
}

Tensor Executor::run_section(size_t section, Tensor x, const Batch& batch, AttentionContext& attention, bool adapted,
                             const Tensor& anchor, bool generates, const RolloutWeights* narrow) const {
  const Section& s = graph_.sections[section];
  const ParamStorage& unit = weights_.sections[section];
  const auto block = [&](int i) { return i < 0 ? Parameter() : Parameter(unit, size_t(i)); };
  std::map<int, Tensor> values{{s.input, std::move(x)}};
  for (size_t i = 0; i < s.operators.size(); ++i) {
    const Operator& op = s.operators[i];
    const BoundOperator& bound = bound_.sections[section][i];
    const Tensor in = op.inputs.empty() ? Tensor() : values.at(op.inputs[0]);
    const Tensor residual = bound.residual < 0 ? Tensor() : values.at(bound.residual);
    const auto first_linear = [&](const Tensor& beside = {}) {
      return run_linear(section, *bound.linear, in, op.weight, op.bias, beside, adapted, narrow);
    };
    const auto last_linear = [&](const Tensor& x) {
      return run_linear(section, *bound.out_linear, x, op.out_weight, op.out_bias, residual, adapted, narrow);
    };
    const bool whole = generates && bound.linear_activate && !narrow && !adapts(section, op.weight);
    const auto activated = [&] {
      return bound.linear_activate->forward(in, block(op.weight).value(), block(op.bias).value());
    };
    Tensor& out = values[op.output];
    switch (op.kind) {
      case Operator::embed:
        out = autograd::embedding(*bound.embedding, block(op.weight), batch.tokens, anchor);
        if (op.factor != 1) out = out * op.factor;
        break;
      case Operator::positions:
        out = autograd::embedding(*bound.embedding, block(op.weight), batch.positions + op.offset, anchor);
        break;
      case Operator::rms_norm:
        out = autograd::rms_norm(*bound.rms_norm, in, block(op.weight));
        break;
      case Operator::layer_norm:
        out = autograd::layer_norm(*bound.layer_norm, in, block(op.weight), block(op.bias));
        break;
      case Operator::linear:
        out = first_linear(residual);
        break;
      case Operator::attention:
        out = last_linear(run_attention(op, bound, first_linear(), batch, unit, attention));
        break;
      case Operator::gated_mlp:
        out = last_linear(whole ? activated() : autograd::gated_activation(*bound.gated_activate, first_linear()));
        break;
      case Operator::mlp:
        out = last_linear(whole ? activated() : autograd::activation(*bound.activate, first_linear()));
        break;
      case Operator::add:
        out = bound.sum < 0 ? in + values.at(op.inputs[1]) : values.at(bound.sum);
        break;
      case Operator::scale:
        out = in * op.factor;
        break;
    }
    for (const int value : bound.last_reads) values.erase(value);
  }
  return values.at(s.output);
}

Tensor Executor::hidden(const Batch& batch, bool adapted) const {
  const MemoryScope scope(MemoryTag::activations);
  if (weights_.streamed) weights_.streamed->release_all();
  RaggedContext attention(batch);
  Tensor x;
  for (size_t i = 0; i < weights_.sections.size(); ++i) {
    // The embeddings read tokens: what their section begins with is an anchor at most.
    const auto section = [&](const Tensor& begin) {
      if (i == 0) return std::pair(run_section(i, {}, batch, attention, adapted, begin), Tensor());
      if (recompute_ && adapted && wants_grad(begin))
        return std::pair(RecomputedSection::apply(begin, this, i, &batch), Tensor());
      return std::pair(run_section(i, begin, batch, attention, adapted, {}), Tensor());
    };
    x = hooked(i, adapted ? begin_of(i, x) : x, section).first;
  }
  return x;
}

Tensor Executor::hidden(const Batch& batch, AttentionContext& attention) const {
  const MemoryScope scope(MemoryTag::activations);
  const at::NoGradGuard no_grad;
  if (weights_.streamed) weights_.streamed->release_all();
  Tensor x;
  for (size_t i = 0; i < weights_.sections.size(); ++i)
    x = hooked(
            i, x,
            [&](const Tensor& begin) {
              return std::pair(run_section(i, begin, batch, attention, true, {}, true, weights_.rollout.get()),
                               Tensor());
            },
            weights_.rollout != nullptr)
            .first;
  return x;
}

void Executor::pack_rollout_weights() const {
  const at::NoGradGuard no_grad;
  for (size_t s = 0; s <= head_section(); ++s) {
    const StreamedWeights::Hold hold(weights_.streamed.get(), s);
    if (hooks_) hooks_->before_forward(s);
    weights_.rollout->pack(s, s < head_section() ? weights_.sections[s] : *weights_.of_section(s)[0]);
    if (hooks_) hooks_->after_forward(s);
  }
}

autograd::LogProb Executor::log_prob(const Tensor& hidden, const Tensor& rows, const Tensor& targets,
                                     double temperature, bool entropy) const {
  const MemoryScope scope(MemoryTag::activations);
  const auto [logp, spread] =
      hooked(head_section(), begin_of(head_section(), hidden.index_select(0, rows)), [&](const Tensor& x) {
        const auto r = autograd::log_prob(bound_.head, x, head(), targets, temperature, entropy);
        return std::pair(r.logp, r.entropy);
      });
  return {logp, spread};
}

Tensor Executor::logits(const Tensor& hidden_TH) const {
  const MemoryScope scope(MemoryTag::activations);
  const at::NoGradGuard no_grad;
  return hooked(head_section(), hidden_TH,
                [&](const Tensor& x) {
                  if (weights_.rollout)
                    return std::pair(bound_.head.capped(weights_.rollout->head().forward(x, {}, {})), Tensor());
                  return std::pair(bound_.head.logits(x, head().value()), Tensor());
                })
      .first;
}

std::pair<Tensor, Tensor> Executor::draw(const Tensor& logits_TV, const Tensor& temperatures,
                                         const Tensor& draws) const {
  const MemoryScope scope(MemoryTag::activations);
  const auto drawn = bound_.head.draw(logits_TV, temperatures, draws);
  return {drawn.tokens, drawn.sums.target_logit - drawn.sums.lse};
}

Tensor Executor::log_prob_of(const Tensor& logits_TV, const Tensor& temperatures, const Tensor& targets) const {
  const MemoryScope scope(MemoryTag::activations);
  const auto sums = bound_.head.sums(logits_TV, temperatures, targets, false);
  return sums.target_logit - sums.lse;
}

Tensor Executor::values(const Tensor& hidden, const Tensor& rows) const {
  const MemoryScope scope(MemoryTag::activations);
  return hooked(head_section(), begin_of(head_section(), hidden.index_select(0, rows)),
                [&](const Tensor& x) {
                  return std::pair(autograd::linear_wide(bound_.value_head, x, head()).squeeze(1), Tensor());
                })
      .first;
}

}  // namespace dsengine
