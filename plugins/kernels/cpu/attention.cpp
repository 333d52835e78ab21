// Causal attention in tiles of 32 keys, which are counted from a sequence's first key and merged in order
// (FlashAttention, Dao et al. 2022): so a query's bits depend on its own sequence alone, and are the same in training,
// in a prefill and from a cache, whatever the blocks it is computed in.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention.cpp"
#include "targets.h"
// after targets.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "attention.h"
#include "scratch.h"
#include "tile-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

constexpr int64_t kKeys = 32;  // of a tile
constexpr int64_t kMostRows = 4 * kRows;

int64_t padded(int64_t width) { return (width + kColumns - 1) / kColumns * kColumns; }

// C [rows, columns] += A [rows, depth] B [depth, columns], columns a multiple of kColumns; A's rows are kRowStride
// apart, or a tile's scores, or those across.
enum class Left { rows, scores, scores_across };
template <Left left>
HWY_INLINE void multiply(int64_t rows, const float* a, const float* b, int64_t b_stride, int64_t depth, float* c,
                         int64_t c_stride, int64_t columns, bool from_zero) {
  constexpr int64_t row = left == Left::rows ? kRowStride : left == Left::scores ? kKeys : 1;
  constexpr int64_t column = left == Left::scores_across ? kKeys : 1;
  for (int64_t r = 0; r < rows; r += kRows)
    for (int64_t n = 0; n < columns; n += kColumns)
      multiply_tile<row, column>(std::min(kRows, rows - r), a + r * row, b + n, b_stride, depth, c + r * c_stride + n,
                                 c_stride, from_zero);
}

// to [width, kKeys] = rows, transposed; what is missing of kKeys rows is 0.
HWY_INLINE void pack_across(const float* const* rows, int64_t count, int64_t width, float* to) {
  int64_t i = 0;
  for (; count == kKeys && i + kStep <= width; i += kStep)
    for (int64_t n = 0; n < kKeys; n += kLanes)
      transpose_step([&](int64_t row) { return rows[n + row] + i; }, to + i * kKeys + n, kKeys);
  for (; i < width; ++i)
    for (int64_t n = 0; n < kKeys; ++n) to[i * kKeys + n] = n < count ? rows[n][i] : 0.0f;
}

// to [count, …] = rows, `stride` apart, filled up with zeros to `columns`.
HWY_INLINE void pack_along(const float* const* rows, int64_t count, int64_t width, int64_t stride, int64_t columns,
                           float* to) {
  for (int64_t r = 0; r < count; ++r, to += stride) {
    std::memcpy(to, rows[r], size_t(width) * sizeof(float));
    std::fill(to + width, to + columns, 0.0f);
  }
}

// A tile's scores of one query: scaled, capped, and kLowest outside of keys [first, last) of it.
HWY_INLINE void finish_scores(const Scores& scores, int64_t first, int64_t last, float* s) {
  const V scale = hn::Set(d, scores.scale), cap = hn::Set(d, scores.cap);
  for (int64_t i = 0; i < kKeys; i += kLanes) {
    V v = hn::Mul(hn::Load(d, s + i), scale);
    if (scores.cap > 0) v = hn::Mul(tanh(hn::Div(v, cap)), cap);
    const V key = hn::Iota(d, float(i));
    const auto seen = hn::And(hn::Ge(key, hn::Set(d, float(first))), hn::Lt(key, hn::Set(d, float(last))));
    hn::Store(hn::IfThenElse(seen, v, hn::Set(d, kLowest)), d, s + i);
  }
}

// Scores become weights exp(score - peak); the row's peak, sum and the factor of what was before change.
HWY_INLINE float weigh(float* s, float& peak, float& sum) {
  V most = hn::Load(d, s);
  for (int64_t i = kLanes; i < kKeys; i += kLanes) most = hn::Max(most, hn::Load(d, s + i));
  const float before = peak;
  peak = std::max(peak, hn::GetLane(hn::MaxOfLanes(d, most)));
  const V now = hn::Set(d, peak), lowest = hn::Set(d, kLowest);
  for (int64_t i = 0; i < kKeys; i += kLanes) {
    const V v = hn::Load(d, s + i);
    hn::Store(hn::IfThenElse(hn::Le(v, lowest), hn::Zero(d), exp(hn::Sub(v, now))), d, s + i);
  }
  const float factor = hn::GetLane(exp(hn::Set(d, before - peak)));
  sum = std::fma(sum, factor, sum32(s));
  return factor;
}

HWY_INLINE void scale_row(float* row, int64_t columns, float factor) {
  const V f = hn::Set(d, factor);
  for (int64_t i = 0; i < columns; i += kLanes) hn::Store(hn::Mul(hn::Load(d, row + i), f), d, row + i);
}

// The keys of a tile that a query sees, of those from `tile` on: [first, last).
HWY_INLINE std::pair<int64_t, int64_t> seen_of(const Scores& scores, int64_t own, int64_t tile) {
  return {std::clamp<int64_t>(scores.first_key(own) - tile, 0, kKeys), std::clamp<int64_t>(own + 1 - tile, 0, kKeys)};
}

void attend(const AttentionCall& call, const QueryBlock& block, int64_t kv) {
  const int64_t width = call.q.width, columns = padded(width), b = block.sequence;
  const int64_t past = call.past(b), begin = call.offsets[b];
  const int64_t most = std::max(kMostRows, call.group);  // a query has as many rows as heads
  float* memory = scratch(most * (kRowStride + columns + kKeys + 2) + kKeys * (width + columns), 0);
  const auto take = [&](int64_t floats) { return std::exchange(memory, memory + floats); };
  float *const qs = take(most * kRowStride), *const sums = take(most * columns);
  float *const weights = take(most * kKeys), *const keys = take(kKeys * width), *const values = take(kKeys * columns);
  float *const peak = take(most), *const total = take(most);
  const float* places[kKeys];

  const int64_t rows = (block.last - block.first) * call.group;  // query by query, in each head by head
  const auto token_of = [&](int64_t row) { return begin + block.first + row / call.group; };
  const auto head_of = [&](int64_t row) { return kv * call.group + row % call.group; };
  const auto own_key = [&](int64_t row) { return past + block.first + row / call.group; };
  for (int64_t r = 0; r < rows; ++r) {
    std::memcpy(qs + r * kRowStride, call.q.row(token_of(r), head_of(r)), size_t(width) * sizeof(float));
    peak[r] = kLowest, total[r] = 0;
  }
  std::fill_n(sums, rows * columns, 0.0f);

  const int64_t end = own_key(rows - 1) + 1;
  for (int64_t tile = call.scores.first_key(own_key(0)) / kKeys * kKeys; tile < end; tile += kKeys) {
    const int64_t count = std::min(kKeys, end - tile);
    const int64_t from = std::max<int64_t>(0, tile - own_key(0)) * call.group;  // the rows before see none of it
    for (int64_t j = 0; j < count; ++j) places[j] = call.k.row(call.key_row(b, tile + j), kv);
    pack_across(places, count, width, keys);
    for (int64_t j = 0; j < count; ++j) places[j] = call.v.row(call.key_row(b, tile + j), kv);
    pack_along(places, count, width, columns, columns, values);
    multiply<Left::rows>(rows - from, qs + from * kRowStride, keys, kKeys, width, weights + from * kKeys, kKeys, kKeys,
                         true);
    for (int64_t r = from; r < rows; ++r) {
      const auto [first, last] = seen_of(call.scores, own_key(r), tile);
      finish_scores(call.scores, first, last, weights + r * kKeys);
      scale_row(sums + r * columns, columns, weigh(weights + r * kKeys, peak[r], total[r]));
    }
    multiply<Left::scores>(rows - from, weights + from * kKeys, values, columns, count, sums + from * columns, columns,
                           columns, false);
  }
  for (int64_t r = 0; r < rows; ++r) {
    float* out = call.out.row(token_of(r), head_of(r));
    for (int64_t i = 0; i < width; ++i) out[i] = sums[r * columns + i] / total[r];
    if (call.lse) call.lse[token_of(r) * call.heads + head_of(r)] = peak[r] + std::log(total[r]);
  }
}

int64_t most_queries(int64_t group) { return std::max<int64_t>(1, kMostRows / group); }

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
    for (int64_t j = 0; j < count; ++j) places[j] = call.k.row(begin + tile + j, kv);
    pack_across(places, count, width, keys_across);
    pack_along(places, count, width, columns, columns, keys);
    for (int64_t j = 0; j < count; ++j) places[j] = call.v.row(begin + tile + j, kv);
    pack_across(places, count, width, values_across);
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
#include <array>

#include "kernels.h"

namespace cpu {

HWY_EXPORT(attend);
HWY_EXPORT(most_queries);
HWY_EXPORT(attend_backward);

namespace {

using dse::Op;

Scores scores_of(const dse_operation& o) { return {float(o.scale), float(o.softcap), o.window}; }

int64_t checked_group(const dse_operation& o) {
  check_instruction_set();
  if (o.head_dim > 256) throw dse::Unsupported("heads of more than 256");
  return o.heads / o.kv_heads;
}

// Sequences' queries in blocks of at most `most`, into memory of the call's; returns how many.
int64_t cut_queries(const int64_t* offsets, int64_t sequences, int64_t most, QueryBlock* blocks) {
  int64_t count = 0;
  for (int64_t b = 0; b < sequences; ++b) {
    const int64_t queries = offsets[b + 1] - offsets[b];
    for (int64_t first = 0; first < queries; first += most)
      blocks[count++] = {b, first, std::min(queries, first + most)};
  }
  return count;
}

template <Op op>
struct Attention {
  static constexpr dse::KernelTraits traits{.op = op, .priority = 1, .row_invariant = true};
  static constexpr bool cached = op == Op::cached_attention;
  explicit Attention(const dse_operation& o)
      : heads(o.heads), kv_heads(o.kv_heads), group(checked_group(o)), scores(scores_of(o)) {}
  int64_t workspace_bytes(int64_t rows) const { return rows * int64_t(sizeof(QueryBlock)); }

  void run(const dse::Call<op>& call) const {
    AttentionCall c;
    c.q = Heads(call.input("q")), c.out = Heads(call.output("out"));
    c.k = Heads(call.input(cached ? "keys" : "k")), c.v = Heads(call.input(cached ? "values" : "v"));
    c.offsets = call.template in<int64_t>("offsets");
    c.heads = heads, c.group = group, c.scores = scores;
    if constexpr (cached) {
      c.blocks = call.template in<int64_t>("blocks"), c.key_counts = call.template in<int64_t>("key_counts");
      c.blocks_a_sequence = call.input("blocks").shape[1], c.block_size = call.input("keys").shape[1];
    } else {
      c.lse = call.template out<float>("lse");
    }
    auto* blocks = static_cast<QueryBlock*>(call.raw.workspace);
    const int64_t count =
        cut_queries(c.offsets, call.input("offsets").shape[0] - 1, HWY_DYNAMIC_DISPATCH(most_queries)(group), blocks);
    const auto attend_block = HWY_DYNAMIC_DISPATCH(attend);
    // Head by head: late queries see more keys, and each thread shall have some.
    dse::parallel_for(0, count * kv_heads, 1, [&](int64_t first, int64_t last) {
      for (int64_t task = first; task < last; ++task) attend_block(c, blocks[task % count], task / count);
    });
  }

  int64_t heads, kv_heads, group;
  Scores scores;
};

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

void add_attention(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<Attention<Op::attention>>("cpu_attention"));
  items.push_back(dse::kernel_item<AttentionBackward>("cpu_attention_backward"));
  items.push_back(dse::kernel_item<Attention<Op::cached_attention>>("cpu_cached_attention"));
}

}  // namespace cpu
#endif
