// Runs a graph with its weights: packed sequences for training and scoring, or another source of keys (a cache).
//
//   Executor run(graph, bound, weights);
//   at::Tensor h = run.hidden(batch, adapted);                         // [N, H], output of the last section
//   auto [logp, entropy] = run.log_prob(h, rows, targets, 1.0, false); // the head is a section like the others
//
// Section hooks, and the streamed weights that are fetched for a section, are where weights come and go: a section's
// weights are read between its before_forward and after_forward, and between its before_backward and after_backward,
// and nowhere else; nodes keep none of them. Borrows its arguments: they, the hooks and the executor outlive every
// backward of what it computed. One thread.
#pragma once
#include <optional>

#include "model/autograd/autograd.h"
#include "model/bound_graph.h"
#include "model/weights.h"

namespace dsengine {

// Where attention gets its keys: the sequence itself (training), or a cache (generation).
class AttentionContext {
 public:
  virtual ~AttentionContext() = default;
  // q [N, Hq, D], k, v [N, Hk, D] of an attention operator -> [N, Hq, D].
  virtual at::Tensor attend(const Operator& op, const ops::Attention& attention, const at::Tensor& q,
                            const at::Tensor& k, const at::Tensor& v) = 0;
  // From q | k | v [N, Hq + 2 Hk, D] on, unturned, where the context can; undefined: it cannot.
  virtual at::Tensor step(const Operator&, const ops::CachedStep&, const at::Tensor&) { return {}; }
};

// Called with a section's index; the head's is the number of sections. A section that is recomputed is run forward once
// more between its before_backward and after_backward, without further calls. Sections before the first that is trained
// have no backward.
class SectionHooks {
 public:
  virtual ~SectionHooks() = default;
  virtual void before_forward(size_t) {}
  virtual void after_forward(size_t) {}
  virtual void before_backward(size_t) {}
  // Its part of the gradients is there. A storage's are whole after the first of the sections that read it: a tied head
  // reads the embedding's.
  virtual void after_backward(size_t) {}
};

class Executor {
 public:
  Executor(const ModelGraph& graph, const BoundGraph& bound, Weights& weights)
      : graph_(graph), bound_(bound), weights_(weights) {}
  Executor(const Executor&) = delete;
  Executor& operator=(const Executor&) = delete;

  // From here on hidden, log_prob and values are differentiable in grad mode, from the first section on that is
  // trained. After the storages have been told what of them is.
  void enable_training();
  // Recompute each section but the first in the backward pass instead of keeping its activations.
  void set_recompute(bool on) { recompute_ = on; }
  bool recompute() const { return recompute_; }
  // Null: none. Not between a forward and its backward.
  void set_hooks(SectionHooks* hooks) { hooks_ = hooks; }

  at::Tensor hidden(const Batch& batch, bool adapted) const;
  // With another source of keys and values; never differentiable.
  at::Tensor hidden(const Batch& batch, AttentionContext& attention) const;
  // log p(targets[i]) read at hidden row rows[i].
  autograd::LogProb log_prob(const at::Tensor& hidden, const at::Tensor& rows, const at::Tensor& targets,
                             double temperature, bool entropy) const;
  // Of the base and its head (ops.h); an adapter's is its own.
  bool row_invariant() const { return bound_.row_invariant(); }
  at::Tensor logits(const at::Tensor& hidden_TH) const;  // [T, V], for sampling
  // log p of targets [T] as log_prob has it, of logits and temperatures [T] float32.
  at::Tensor log_prob_of(const at::Tensor& logits_TV, const at::Tensor& temperatures, const at::Tensor& targets) const;
  // The next tokens of logits, as LogProb::draw has them: tokens and their log p.
  std::pair<at::Tensor, at::Tensor> draw(const at::Tensor& logits_TV, const at::Tensor& temperatures,
                                         const at::Tensor& draws) const;
  at::Tensor values(const at::Tensor& hidden, const at::Tensor& rows) const;  // of a value head, [T]
  // Weights::rollout anew; there is one.
  void pack_rollout_weights() const;

 private:
  friend struct RecomputedSection;
  friend struct SectionBegin;
  friend struct SectionEnd;
  at::Tensor begin_of(size_t section, const at::Tensor& x) const;
  size_t head_section() const { return weights_.sections.size(); }
  Parameter head() const;
  // generates: no gradient is asked for, and kernels that do more than one operation may. narrow: null, or what its
  // linears read in the weights' place.
  at::Tensor run_section(size_t section, at::Tensor x, const Batch& batch, AttentionContext& attention, bool adapted,
                         const at::Tensor& anchor, bool generates = false,
                         const RolloutWeights* narrow = nullptr) const;
  bool adapts(size_t section, int weight) const;
  at::Tensor run_linear(size_t section, const ops::Linear& op, const at::Tensor& x, int weight, int bias,
                        const at::Tensor& residual, bool adapted, const RolloutWeights* narrow) const;
  at::Tensor run_attention(const Operator& op, const BoundOperator& bound, at::Tensor qkv, const Batch& batch,
                           const ParamStorage& unit, AttentionContext& attention) const;
  // A section as the hooks see it: what of it is streamed is fetched and they are called around `body`, which makes two
  // tensors of x (the second may be undefined), and once more in the backward. narrow: its linears are read elsewhere.
  template <class Body>
  auto hooked(size_t section, const at::Tensor& x, const Body& body, bool narrow = false) const;

  const ModelGraph& graph_;
  const BoundGraph& bound_;
  Weights& weights_;
  SectionHooks* hooks_ = nullptr;
  bool recompute_ = false;
  // The first section with something to train, whose input is made to want a gradient: what comes before it keeps
  // nothing for a backward.
  std::optional<size_t> first_trained_{};
  at::Tensor anchor_;  // such an input for the embeddings, which have none
};

}  // namespace dsengine
