#include <ATen/ATen.h>

#include <limits>

#include "ops/reference/reference.h"
#include "ops/wide.h"

namespace dsengine::reference {

using at::Tensor;
using ops::widened;

Tensor rope(const Tensor& x, int64_t turned, const Tensor& positions, const Tensor& lengths, const Tensor& frequencies,
            const Tensor& long_frequencies, const RopeSpec& rope, int sign) {
  const int64_t pairs = frequencies.size(0), rest = x.size(2) - 2 * pairs;
  Tensor rates = frequencies.unsqueeze(0);
  if (long_frequencies.defined())
    rates = at::where((lengths > rope.long_after).unsqueeze(1), long_frequencies.unsqueeze(0), rates);
  // The angle is rounded to float32, as Hugging Face computes it.
  const Tensor angle = positions.to(at::kFloat).unsqueeze(1) * rates;
  const auto type = ops::wide(x.scalar_type());
  const Tensor cosine = (angle.cos() * rope.amplitude).to(type).unsqueeze(1);
  const Tensor sine = (angle.sin() * (rope.amplitude * float(sign))).to(type).unsqueeze(1);
  const Tensor heads = widened(x.narrow(1, 0, turned)), a = heads.narrow(2, 0, pairs),
               b = heads.narrow(2, pairs, pairs);
  const Tensor y = at::cat({a * cosine - b * sine, b * cosine + a * sine, heads.narrow(2, 2 * pairs, rest)}, 2);
  return at::cat({y.to(x.scalar_type()), x.narrow(1, turned, x.size(1) - turned)}, 1);
}

namespace {

// One sequence: q [Hq, n, D] after `past` of its keys [Hq, past + n, D]. Scores before the softmax, -inf where a query
// does not see a key; slope: of the softcap, undefined where there is none.
struct Scores {
  Tensor s, slope;  // [Hq, n, past + n]
};

Scores scores_of(const Tensor& q, const Tensor& k, int64_t past, const AttentionScores& how) {
  Scores r{at::matmul(q, k.transpose(1, 2)) * how.scale, {}};
  if (how.softcap > 0) {
    const Tensor bent = (r.s / how.softcap).tanh();
    r.slope = 1 - bent.square(), r.s = bent * how.softcap;
  }
  const int64_t n = q.size(1), keys = k.size(1);
  const auto where = q.options().dtype(at::kLong);
  const Tensor behind = (at::arange(past, past + n, where).unsqueeze(1) - at::arange(keys, where)).unsqueeze(0);
  Tensor unseen = behind < 0;
  if (how.window > 0) unseen = unseen.bitwise_or(behind >= how.window);
  r.s = r.s.masked_fill(unseen, -std::numeric_limits<double>::infinity());
  return r;
}

// [n, heads, D] -> [heads repeated, n, D].
Tensor by_head(const Tensor& t, int64_t repeat) {
  const Tensor heads = t.transpose(0, 1);
  return repeat == 1 ? heads : heads.repeat_interleave(repeat, 0);
}

// out [n, Hq, D], lse [n, Hq].
ops::Attended attend(const Tensor& q, const Tensor& k, const Tensor& v, int64_t past, const AttentionScores& how) {
  const int64_t group = q.size(1) / k.size(1);
  const Tensor s = scores_of(by_head(q, 1), by_head(k, group), past, how).s;
  return {at::matmul(at::softmax(s, 2), by_head(v, group)).transpose(0, 1), at::logsumexp(s, 2).transpose(0, 1)};
}

}  // namespace

ops::Attended attention(const Tensor& q, const Tensor& k, const Tensor& v, const Batch& batch,
                        const AttentionScores& scores) {
  ops::Attended r{at::empty(q.sizes(), q.options()), ops::wide_empty(q, {q.size(0), q.size(1)})};
  for (int64_t b = 0; b < batch.sequences(); ++b) {
    const int64_t first = batch.offsets[b], n = batch.offsets[b + 1] - first;
    const auto part = [&](const Tensor& t) { return t.narrow(0, first, n); };
    const auto [out, lse] = attend(widened(part(q)), widened(part(k)), widened(part(v)), 0, scores);
    part(r.out).copy_(out), part(r.lse).copy_(lse);
  }
  return r;
}

ops::AttentionGradients attention_backward(const Tensor& d_out, const Tensor& q, const Tensor& k, const Tensor& v,
                                           const ops::Attended& result, const Batch& batch,
                                           const AttentionScores& scores) {
  ops::AttentionGradients g{at::empty(q.sizes(), q.options()), at::empty(k.sizes(), k.options()),
                            at::empty(v.sizes(), v.options())};
  const int64_t kv_heads = k.size(1), group = q.size(1) / kv_heads;
  for (int64_t b = 0; b < batch.sequences(); ++b) {
    const int64_t first = batch.offsets[b], n = batch.offsets[b + 1] - first;
    const auto part = [&](const Tensor& t) { return t.narrow(0, first, n); };
    const auto heads = [&](const Tensor& t, int64_t repeat) { return by_head(widened(part(t)), repeat); };
    const Tensor qh = heads(q, 1), kh = heads(k, group), vh = heads(v, group), d = heads(d_out, 1);
    const auto [s, slope] = scores_of(qh, kh, 0, scores);
    const Tensor p = (s - part(result.lse).t().unsqueeze(2)).exp();
    const Tensor delta = (d * heads(result.out, 1)).sum(2, true);
    Tensor ds = p * (at::matmul(d, vh.transpose(1, 2)) - delta) * scores.scale;
    if (slope.defined()) ds = ds * slope;
    const auto over_group = [&](const Tensor& t) {  // [Hq, n, D] -> [n, Hk, D]
      return t.view({kv_heads, group, n, t.size(2)}).sum(1).transpose(0, 1);
    };
    part(g.dq).copy_(at::matmul(ds, kh).transpose(0, 1));
    part(g.dk).copy_(over_group(at::matmul(ds.transpose(1, 2), qh)));
    part(g.dv).copy_(over_group(at::matmul(p.transpose(1, 2), d)));
  }
  return g;
}

Tensor cached_attention(const Tensor& q, const Tensor& keys, const Tensor& values, const ops::CachePlaces& places,
                        const Batch& batch, const AttentionScores& scores) {
  Tensor out = at::empty(q.sizes(), q.options());
  const Tensor in_block = at::arange(places.block_size, places.blocks.options());
  for (int64_t b = 0; b < batch.sequences(); ++b) {
    const int64_t first = batch.offsets[b], n = batch.offsets[b + 1] - first, past = batch.past[b];
    const Tensor rows = (places.blocks[b].unsqueeze(1) * places.block_size + in_block).flatten().narrow(0, 0, past + n);
    const Tensor k = keys.flatten(0, 1).index_select(0, rows), v = values.flatten(0, 1).index_select(0, rows);
    out.narrow(0, first, n).copy_(attend(widened(q.narrow(0, first, n)), widened(k), widened(v), past, scores).out);
  }
  return out;
}

}  // namespace dsengine::reference
