#include <ATen/ATen.h>

#include "ops/flash_attention.h"
#include "ops/ops.h"
#include "ops/reference/reference.h"
#include "ops/wide.h"

namespace dsengine::ops {

using at::Tensor;
using dse::Op;

bool Attention::row_invariant() const {
  return forward_.row_invariant() && cached_.row_invariant() && forward_.same_library(cached_);
}

Attention::Attention(const Kernels& kernels, at::ScalarType dtype, int64_t heads, int64_t kv_heads, int64_t head_dim,
                     const AttentionScores& scores)
    : scores_(scores) {
  const Operation o{.op = Op::attention,
                    .dtype = dtype,
                    .heads = heads,
                    .kv_heads = kv_heads,
                    .head_dim = head_dim,
                    .scores = scores};
  flash_ = flash::serves(kernels, dtype, head_dim, scores);
  if (!flash_) {
    forward_ = kernels.bind(o);
    backward_ = kernels.bind(o.as(Op::attention_backward));
  }
  write_ = kernels.bind(o.as(Op::cache_write));
  cached_ = kernels.bind(o.as(Op::cached_attention));
}

Attended Attention::forward(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch,
                            bool want_lse) const {
  if (flash_) return flash::attention(q, k, v, batch, scores_);
  if (!forward_) return reference::attention(q, k, v, batch, scores_);
  Attended r{q.new_empty(q.sizes()), want_lse ? wide_empty(q, {q.size(0), q.size(1)}) : Tensor()};
  forward_.run({q, k, v, batch.starts}, {r.out, r.lse}, q.size(0), {}, {batch.longest});
  return r;
}

AttentionGradients Attention::backward(const Tensor& d_out, const Tensor& q, const Tensor& k, const Tensor& v,
                                       const Attended& result, const Batch& batch) const {
  if (flash_) return flash::attention_backward(d_out, q, k, v, result, batch, scores_);
  if (!backward_) return reference::attention_backward(d_out, q, k, v, result, batch, scores_);
  AttentionGradients g{q.new_empty(q.sizes()), k.new_empty(k.sizes()), v.new_empty(v.sizes())};
  backward_.run({d_out, q, k, v, result.out, result.lse, batch.starts}, {g.dq, g.dk, g.dv}, q.size(0), {},
                {batch.longest});
  return g;
}

void Attention::write(const Tensor& k, const Tensor& v, const CachePlaces& places, Tensor& keys, Tensor& values) const {
  if (write_) return write_.run({k, v, places.rows}, {keys, values}, k.size(0));
  for (const auto& [from, to] : {std::pair{&k, &keys}, {&v, &values}})
    to->flatten(0, 1).index_copy_(0, places.rows, *from);
}

Tensor Attention::cached(const Tensor& q, const Tensor& keys, const Tensor& values, const CachePlaces& places,
                         const Batch& batch) const {
  if (!cached_) return reference::cached_attention(q, keys, values, places, batch, scores_);
  Tensor out = q.new_empty(q.sizes());
  cached_.run({q, keys, values, places.blocks, batch.starts, places.key_counts}, {out}, q.size(0), {}, {batch.longest});
  return out;
}

CachedStep::CachedStep(const Kernels& kernels, at::ScalarType dtype, int64_t heads, int64_t kv_heads, int64_t head_dim,
                       const AttentionScores& scores, const RopeSpec& rope)
    : heads_(heads),
      kernel_(kernels.bind_whole({.op = Op::cached_step,
                                  .dtype = dtype,
                                  .heads = heads,
                                  .kv_heads = kv_heads,
                                  .head_dim = head_dim,
                                  .scores = scores,
                                  .rope = rope})) {}

Tensor CachedStep::forward(const Tensor& qkv, const Batch& batch, const CachePlaces& places, Tensor& keys,
                           Tensor& values) const {
  Tensor out = qkv.new_empty({qkv.size(0), heads_, qkv.size(2)});
  kernel_.run(
      {qkv.contiguous(), batch.positions, batch.lengths, places.rows, places.blocks, batch.starts, places.key_counts},
      {out, keys, values}, qkv.size(0), {}, {batch.longest});
  return out;
}

}  // namespace dsengine::ops
