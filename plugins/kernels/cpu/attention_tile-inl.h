// A tile of keys merged into rows of queries: their running peaks, totals and sums. Many rows read it packed, few where
// it stands: packing would cost more than their products. Either way a row comes to the same bits. Included as
// tile-inl.h is.
#if defined(DSE_CPU_ATTENTION_TILE_INL_H) == defined(HWY_TARGET_TOGGLE)
#ifdef DSE_CPU_ATTENTION_TILE_INL_H
#undef DSE_CPU_ATTENTION_TILE_INL_H
#else
#define DSE_CPU_ATTENTION_TILE_INL_H
#endif

#include <algorithm>
#include <cmath>
#include <utility>

#include "attention-inl.h"

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

constexpr int64_t kFewRows = kLanes >= 16 ? 8 : 4;  // of which a tile is read where it stands, not packed

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

// Rows of a task, key-value head by head, and what they have come to.
struct Rows {
  int64_t width, columns, kv, heads, of_head;
  float *q, *sums, *weights;  // [rows, kRowStride], [rows, columns], [rows, kKeys]
  float *peak, *total;
  float *keys, *values;  // a packed tile
};

// Adjacent blocks of a task; the first one's rows begin at `row`.
struct Run {
  const QueryBlock* blocks;
  int64_t count, row;
};

// Keys [first, end) of a sequence, which may be none.
struct Keys {
  int64_t sequence, first, end;
  int64_t in_tile() const { return std::clamp<int64_t>(end - first, 0, kKeys); }
};

// A tile of keys, of one head after the other, and what will be read after it.
struct Tile {
  int64_t first, count, after;
  const float *keys[kKeys], *values[kKeys], *next_keys[kKeys], *next_values[kKeys];

  HWY_INLINE Tile(const AttentionCall& call, const Keys& now, const Keys& then, int64_t kv)
      : first(now.first), count(now.in_tile()) {
    const Keys rest{now.sequence, now.first + kKeys, now.end}, &soon = rest.in_tile() > 0 ? rest : then;
    after = soon.in_tile();
    int64_t rows[kKeys];
    call.key_rows(now.sequence, first, count, rows);
    place(call.k, rows, kv, keys), place(call.v, rows, kv, values);
    if (after > 0) call.key_rows(soon.sequence, soon.first, after, rows);
    place(call.k, rows, kv, next_keys), place(call.v, rows, kv, next_values);
  }
  HWY_INLINE void next_head(const AttentionCall& call) {
    move(keys, call.k.head_stride), move(values, call.v.head_stride);
    move(next_keys, call.k.head_stride), move(next_values, call.v.head_stride);
  }

 private:
  static HWY_INLINE void move(const float** places, int64_t by) {
    for (int64_t j = 0; j < kKeys; ++j) places[j] += by;
  }
};

// f(row of the query's first head, token, the key that is its own) of each query.
template <class F>
HWY_INLINE void each_query(const AttentionCall& call, const Run& run, const F& f) {
  int64_t row = run.row;
  for (int64_t b = 0; b < run.count; ++b) {
    const QueryBlock& block = run.blocks[b];
    const int64_t begin = call.offsets[block.sequence], past = call.past(block.sequence);
    for (int64_t i = block.first; i < block.last; ++i, row += call.group) f(row, begin + i, past + i);
  }
}

// s = scores of R rows, one chain each along the width: keys are transposed on the way. next: of the next tile.
template <int R>
HWY_NOINLINE void scores_of_few(const float* const* keys, const float* const* next, int64_t count, int64_t width,
                                const float* q, float* s) {
  HWY_ALIGN float step[kStep * kColumns];
  for (int64_t n = 0; n < kKeys; n += kColumns) {
    V sums[R][kVectors];
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::Zero(d);
    const auto add = [&](int64_t i, const float* from) HWY_ATTR {
      V ks[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) ks[v] = hn::Load(d, from + v * kLanes);
      add_products<R, kRowStride>(q + i, ks, sums);
    };
    int64_t i = n < count ? 0 : width;  // of keys that are none, zeros do
    for (; i + kStep <= width; i += kStep) {
      if (next && i % 16 == 0)
        for (int64_t k = 0; k < kColumns; ++k) fetch(next[n + k] + i);
#pragma GCC unroll 2
      for (int64_t v = 0; v < kVectors; ++v)
        transpose_step([&](int64_t row) { return keys[n + v * kLanes + row] + i; }, step + v * kLanes, kColumns);
#pragma GCC unroll 16
      for (int64_t k = 0; k < kStep; ++k) add(i + k, step + k * kColumns);
    }
    for (; i < width; ++i) {
      for (int64_t k = 0; k < kColumns; ++k) step[k] = keys[n + k][i];
      add(i, step);
    }
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) hn::Store(sums[r][v], d, s + r * kKeys + n + v * kLanes);
  }
}

// Sums of R rows, scaled by their factors, += weights values, in `vectors` vectors of the width; left: of the width.
template <int R, int vectors>
HWY_INLINE void add_values(const float* const* values, const float* const* next, int64_t count, int64_t i, int64_t left,
                           const float* weights, const float* factors, float* to, int64_t stride) {
  V sums[R][vectors];
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v)
      sums[r][v] = hn::Mul(hn::Load(d, to + r * stride + i + v * kLanes), hn::Set(d, factors[r]));
  for (int64_t j = 0; j < count; ++j) {
    V value[vectors];
    if (next)
      for (int v = 0; v < vectors * kLanes; v += 16) fetch(next[j] + i + v);
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v)
      value[v] = vectors == 1 ? load_some(values[j] + i, left) : hn::LoadU(d, values[j] + i + v * kLanes);
#pragma GCC unroll 8
    for (int r = 0; r < R; ++r) {
      const V weight = hn::Set(d, weights[r * kKeys + j]);
#pragma GCC unroll 8
      for (int v = 0; v < vectors; ++v) sums[r][v] = hn::MulAdd(weight, value[v], sums[r][v]);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 8
    for (int v = 0; v < vectors; ++v) hn::Store(sums[r][v], d, to + r * stride + i + v * kLanes);
}

template <int R>
HWY_NOINLINE void add_values_to_few(const float* const* values, const float* const* next, int64_t count, int64_t width,
                                    const float* weights, const float* factors, float* sums, int64_t stride) {
  constexpr int vectors = R <= kFewRows / 2 ? 4 : 2;  // what the registers hold
  int64_t i = 0;
  for (; i + vectors * kLanes <= width; i += vectors * kLanes)
    add_values<R, vectors>(values, next, count, i, kLanes, weights, factors, sums, stride);
  for (; i < width; i += kLanes) add_values<R, 1>(values, next, count, i, width - i, weights, factors, sums, stride);
}

template <int R>
void merge_into_few(const AttentionCall& call, const Rows& rows, const Run& run, const Tile& tile) {
  const bool more = tile.after > 0;
  float *const weights = rows.weights + run.row * kKeys, factors[R];
  scores_of_few<R>(tile.keys, more ? tile.next_keys : nullptr, tile.count, rows.width, rows.q + run.row * kRowStride,
                   weights);
  each_query(call, run, [&](int64_t row, int64_t, int64_t own) HWY_ATTR {
    const auto [first, last] = seen_of(call.scores, own, tile.first);
    for (int64_t r = row; r < row + call.group; ++r) {
      float* s = rows.weights + r * kKeys;
      finish_scores(call.scores, first, last, s);
      factors[r - run.row] = weigh(s, rows.peak[r], rows.total[r]);
    }
  });
  add_values_to_few<R>(tile.values, more ? tile.next_values : nullptr, tile.count, rows.width, weights, factors,
                       rows.sums + run.row * rows.columns, rows.columns);
}

void merge_into_many(const AttentionCall& call, const Rows& rows, const Run& run, int64_t count, const Tile& tile) {
  const int64_t width = rows.width, columns = rows.columns;
  pack_across(tile.keys, width, rows.keys);
  pack_along(tile.values, tile.count, width, columns, columns, rows.values);
  for (int64_t j = 0; j < tile.after; ++j)
    for (int64_t i = 0; i < width; i += 16) fetch(tile.next_keys[j] + i), fetch(tile.next_values[j] + i);
  float* weights = rows.weights + run.row * kKeys;
  multiply<Left::rows>(count, rows.q + run.row * kRowStride, rows.keys, kKeys, width, weights, kKeys, kKeys, true);
  each_query(call, run, [&](int64_t row, int64_t, int64_t own) HWY_ATTR {
    const auto [first, last] = seen_of(call.scores, own, tile.first);
    for (int64_t r = row; r < row + call.group; ++r) {
      float* s = rows.weights + r * kKeys;
      finish_scores(call.scores, first, last, s);
      scale_row(rows.sums + r * columns, columns, weigh(s, rows.peak[r], rows.total[r]));
    }
  });
  multiply<Left::scores>(count, weights, rows.values, columns, tile.count, rows.sums + run.row * columns, columns,
                         columns, false);
}

using MergeIntoFew = void (*)(const AttentionCall&, const Rows&, const Run&, const Tile&);
template <int... R>
MergeIntoFew merge_of(int64_t count, std::integer_sequence<int, R...>) {
  static constexpr MergeIntoFew all[] = {&merge_into_few<R + 1>...};
  return all[count - 1];
}

// A tile of keys, for a run's rows of every head: what is read of a token lies together.
void merge(const AttentionCall& call, const Rows& rows, Run run, Tile tile) {
  int64_t count = 0;
  for (int64_t b = 0; b < run.count; ++b) count += (run.blocks[b].last - run.blocks[b].first) * call.group;
  if (count == 0) return;
  const auto few = count <= kFewRows ? merge_of(count, std::make_integer_sequence<int, int(kFewRows)>()) : nullptr;
  for (int64_t h = 0; h < rows.heads; ++h, run.row += rows.of_head, tile.next_head(call))
    if (few)
      few(call, rows, run, tile);
    else
      merge_into_many(call, rows, run, count, tile);
}

}  // namespace HWY_NAMESPACE
}  // namespace cpu
HWY_AFTER_NAMESPACE();
#endif  // toggled
