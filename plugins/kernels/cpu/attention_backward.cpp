// The gradient of attention (FlashAttention, Dao et al. 2022) from each row's sum, with nothing kept of its weights.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention_backward.cpp"
#include "targets.h"
// after targets.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cstring>

#include "attention-inl.h"
#include "scratch.h"

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

// Of one tile and some rows: weights, and the slopes of the scores in their place.
HWY_INLINE void slopes_of_scores(const Scores& scores, int64_t first, int64_t last, float lse, float delta, float* s,
                                 float* dp) {
  const V scale = hn::Set(d, scores.scale), cap = hn::Set(d, scores.cap), one = hn::Set(d, 1.0f);
  finish_scores(scores, first, last, s);
  for (int64_t i = 0; i < kKeys; i += kLanes) {
    const V v = hn::Load(d, s + i);
    const auto unseen = hn::Le(v, hn::Set(d, kLowest));
    const V p = hn::IfThenElse(unseen, hn::Zero(d), exp(hn::Sub(v, hn::Set(d, lse))));
    V ds = hn::Mul(hn::Mul(scale, p), hn::Sub(hn::Load(d, dp + i), hn::Set(d, delta)));
    if (scores.cap > 0) {
      const V part = hn::Div(v, cap);
      ds = hn::IfThenElse(unseen, hn::Zero(d), hn::Mul(ds, hn::NegMulAdd(part, part, one)));
    }
    hn::Store(p, d, s + i);
    hn::Store(ds, d, dp + i);
  }
}

HWY_INLINE void add_rows(float* const* to, const float* from, int64_t count, int64_t width, int64_t stride) {
  for (int64_t r = 0; r < count; ++r)
    for (int64_t i = 0; i < width; ++i) to[r][i] += from[r * stride + i];
}

// A sequence's key-value head: nothing is summed across tasks. Tile by tile of keys, rows of queries within.
void attend_backward(const AttentionSlopes& slopes, int64_t b, int64_t kv) {
  const AttentionCall& call = slopes.forward;
  const int64_t width = call.q.width, columns = padded(width), begin = call.offsets[b];
  const int64_t queries = call.offsets[b + 1] - begin, rows = queries * call.group;
  float* memory = scratch(
      2 * kRows * kRowStride + kRows * columns + 2 * kRows * kKeys + 2 * kKeys * width + 3 * kKeys * columns + rows, 0);
  const auto take = [&](int64_t floats) { return std::exchange(memory, memory + floats); };
  float *const qs = take(kRows * kRowStride), *const gs = take(kRows * kRowStride), *const dqs = take(kRows * columns);
  float *const s = take(kRows * kKeys), *const ds = take(kRows * kKeys), *const keys_across = take(kKeys * width);
  float *const values_across = take(kKeys * width), *const keys = take(kKeys * columns);
  float *const dks = take(kKeys * columns), *const dvs = take(kKeys * columns), *const delta = take(rows);
  const float* places[kKeys];
  float* targets[kKeys];

  const auto token_of = [&](int64_t row) { return begin + row / call.group; };
  const auto head_of = [&](int64_t row) { return kv * call.group + row % call.group; };
  for (int64_t r = 0; r < rows; ++r) {
    const float *g = slopes.d_out.row(token_of(r), head_of(r)), *o = call.out.row(token_of(r), head_of(r));
    float sum = 0;
    for (int64_t i = 0; i < width; ++i) sum = std::fma(g[i], o[i], sum);
    delta[r] = sum;
    std::fill_n(slopes.dq.row(token_of(r), head_of(r)), width, 0.0f);
  }
  for (int64_t tile = 0; tile < queries; tile += kKeys) {
    const int64_t count = std::min(kKeys, queries - tile);
    int64_t key_rows[kKeys];
    call.key_rows(b, tile, count, key_rows);
    place(call.k, key_rows, kv, places);
    pack_across(places, width, keys_across);
    pack_along(places, count, width, columns, columns, keys);
    place(call.v, key_rows, kv, places);
    pack_across(places, width, values_across);
    std::fill_n(dks, kKeys * columns, 0.0f), std::fill_n(dvs, kKeys * columns, 0.0f);
    const int64_t after = call.scores.window > 0 ? std::min(queries, tile + count - 1 + call.scores.window) : queries;
    for (int64_t row = tile * call.group; row < after * call.group; row += kRows) {
      const int64_t some = std::min(kRows, after * call.group - row);
      for (int64_t r = 0; r < some; ++r) places[r] = call.q.row(token_of(row + r), head_of(row + r));
      pack_along(places, some, width, kRowStride, columns, qs);
      for (int64_t r = 0; r < some; ++r) places[r] = slopes.d_out.row(token_of(row + r), head_of(row + r));
      pack_along(places, some, width, kRowStride, columns, gs);
      multiply<Left::rows>(some, qs, keys_across, kKeys, width, s, kKeys, kKeys, true);
      multiply<Left::rows>(some, gs, values_across, kKeys, width, ds, kKeys, kKeys, true);
      for (int64_t r = 0; r < some; ++r) {
        const auto [first, last] = seen_of(call.scores, (row + r) / call.group, tile);
        const float lse = call.lse[token_of(row + r) * call.heads + head_of(row + r)];
        slopes_of_scores(call.scores, first, last, lse, delta[row + r], s + r * kKeys, ds + r * kKeys);
      }
      multiply<Left::scores_across>(kKeys, s, gs, kRowStride, some, dvs, columns, columns, false);
      multiply<Left::scores_across>(kKeys, ds, qs, kRowStride, some, dks, columns, columns, false);
      multiply<Left::scores>(some, ds, keys, columns, count, dqs, columns, columns, true);
      for (int64_t r = 0; r < some; ++r) targets[r] = slopes.dq.row(token_of(row + r), head_of(row + r));
      add_rows(targets, dqs, some, width, columns);
    }
    for (int64_t j = 0; j < count; ++j) {
      std::memcpy(slopes.dk.row(begin + tile + j, kv), dks + j * columns, size_t(width) * sizeof(float));
      std::memcpy(slopes.dv.row(begin + tile + j, kv), dvs + j * columns, size_t(width) * sizeof(float));
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels.h"

namespace cpu {

HWY_EXPORT(attend_backward);

namespace {

using dse::Op;

struct AttentionBackward {
  static constexpr dse::KernelTraits traits{.op = Op::attention_backward, .priority = 1, .row_invariant = true};
  explicit AttentionBackward(const dse_operation& o)
      : heads(o.heads), kv_heads(o.kv_heads), group(checked_group(o)), scores(scores_of(o)) {}

  void run(const dse::Call<traits.op>& call) const {
    AttentionSlopes s;
    s.forward.q = Heads(call.input("q")), s.forward.k = Heads(call.input("k")), s.forward.v = Heads(call.input("v"));
    s.forward.out = Heads(call.input("out")), s.forward.lse = const_cast<float*>(call.in<float>("lse"));
    s.forward.offsets = call.in<int64_t>("offsets");
    s.forward.heads = heads, s.forward.group = group, s.forward.scores = scores;
    s.d_out = Heads(call.input("d_out"));
    s.dq = Heads(call.output("dq")), s.dk = Heads(call.output("dk")), s.dv = Heads(call.output("dv"));
    const auto backward = HWY_DYNAMIC_DISPATCH(attend_backward);
    dse::parallel_for(0, (call.input("offsets").shape[0] - 1) * kv_heads, 1, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) backward(s, task / kv_heads, task % kv_heads);
    });
  }

  int64_t heads, kv_heads, group;
  Scores scores;
};

}  // namespace

void add_attention_backward(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<AttentionBackward>("cpu_attention_backward"));
}

}  // namespace cpu
#endif
