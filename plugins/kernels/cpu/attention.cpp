// Causal attention in tiles of 32 keys, which are counted from a sequence's first key and merged in order
// (FlashAttention, Dao et al. 2022): so a query's bits depend on its own sequence alone, and are the same in training,
// in a prefill and from a cache, whatever the blocks it is computed in. Tiles that sequences of a cache share are read
// once for the rows of all of them; then each goes on with its own.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention.cpp"
#include "targets.h"
// after targets.h
#include <hwy/cache_control.h>
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "attention-inl.h"
#include "scratch.h"

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

constexpr int64_t kMostRows = 4 * kRows;  // of a task, unless one query has more
constexpr int64_t kFewRows = kLanes >= 16 ? 8 : 4;  // for which a tile is not packed

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

// Asks for a line that is read a tile later, to the second level of the cache: for so many misses the first has no room.
HWY_INLINE void fetch(const float* line) { __builtin_prefetch(line, 0, 2); }

// Scores of R rows, as one chain each along the width: keys are transposed on the way.
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
#pragma GCC unroll 8
      for (int r = 0; r < R; ++r) {
        const V qs = hn::Set(d, q[r * kRowStride + i]);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) sums[r][v] = hn::MulAdd(qs, hn::Load(d, from + v * kLanes), sums[r][v]);
      }
    };
    int64_t i = n < count ? 0 : width;  // of keys that are none, zeros do
    for (; i + kStep <= width; i += kStep) {
      if (next)
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
HWY_INLINE void add_values(const float* const* values, const float* const* next, int64_t count, int64_t i, int64_t left, const float* weights,
                           const float* factors, float* to, int64_t stride) {
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
HWY_NOINLINE void add_values_to_few(const float* const* values, const float* const* next, int64_t count, int64_t width, const float* weights,
                                    const float* factors, float* sums, int64_t stride) {
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

// The keys that a block reads, from tile `tile` on: the first that counts for any of its queries is in the first tile.
HWY_INLINE Keys keys_of(const AttentionCall& call, const QueryBlock& block, int64_t tile) {
  const int64_t past = call.past(block.sequence), first = call.scores.first_key(past + block.first) / kKeys;
  return {block.sequence, std::max(tile, first) * kKeys, past + block.last};
}

// Tiles [0, shared), which all blocks have: of those that see any of one, the rows side by side.
void merge_shared(const AttentionCall& call, const Rows& rows, const Run& run, int64_t shared) {
  for (int64_t tile = 0; tile < shared; ++tile) {
    const Tile keys(call, {run.blocks[0].sequence, tile * kKeys, shared * kKeys}, keys_of(call, run.blocks[0], shared),
                    rows.kv);
    Run seeing{run.blocks, 0, run.row};
    int64_t row = run.row;
    for (int64_t b = 0; b < run.count; ++b) {
      row += (run.blocks[b].last - run.blocks[b].first) * call.group;
      if (keys_of(call, run.blocks[b], 0).first <= keys.first) {
        ++seeing.count;
      } else {
        merge(call, rows, seeing, keys);
        seeing = {run.blocks + b + 1, 0, row};
      }
    }
    merge(call, rows, seeing, keys);
  }
}

// A block's own keys. Its queries that come before a tile see nothing of it.
void merge_own(const AttentionCall& call, const Rows& rows, const QueryBlock& block, int64_t row, Keys keys,
               const Keys& then) {
  for (const int64_t own = keys.end - (block.last - block.first); keys.first < keys.end; keys.first += kKeys) {
    const int64_t before = std::max<int64_t>(0, keys.first - own);
    const QueryBlock seeing{block.sequence, block.first + before, block.last, 0};
    merge(call, rows, {&seeing, 1, row + before * call.group}, Tile(call, keys, then, rows.kv));
  }
}

// f(row, token, head) of a task.
template <class F>
HWY_INLINE void each_row(const AttentionCall& call, const Rows& rows, const QueryBlock* blocks, int64_t count,
                         const F& f) {
  for (int64_t h = 0; h < rows.heads; ++h)
    each_query(call, {blocks, count, h * rows.of_head}, [&](int64_t row, int64_t token, int64_t) {
      for (int64_t g = 0; g < call.group; ++g) f(row + g, token, (rows.kv + h) * call.group + g);
    });
}

// A task; its thread reads `then`'s keys after it.
void attend(const AttentionCall& call, const QueryBlock* blocks, int64_t count, int64_t kv, int64_t heads,
            const QueryBlock* then) {
  Rows rows{};
  rows.width = call.q.width, rows.columns = padded(rows.width), rows.kv = kv, rows.heads = heads;
  for (int64_t b = 0; b < count; ++b) rows.of_head += (blocks[b].last - blocks[b].first) * call.group;
  const int64_t most = heads * rows.of_head;
  float* memory = scratch(most * (kRowStride + rows.columns + kKeys + 2) + kKeys * (rows.width + rows.columns), 0);
  const auto take = [&](int64_t floats) { return std::exchange(memory, memory + floats); };
  rows.q = take(most * kRowStride), rows.sums = take(most * rows.columns), rows.weights = take(most * kKeys);
  rows.keys = take(kKeys * rows.width), rows.values = take(kKeys * rows.columns);
  rows.peak = take(most), rows.total = take(most);

  each_row(call, rows, blocks, count, [&](int64_t row, int64_t token, int64_t head) {
    std::memcpy(rows.q + row * kRowStride, call.q.row(token, head), size_t(rows.width) * sizeof(float));
    std::fill_n(rows.sums + row * rows.columns, rows.columns, 0.0f);
    rows.peak[row] = kLowest, rows.total[row] = 0;
  });
  int64_t shared = 0;
  for (int64_t b = 1; b < count; ++b) shared = b == 1 ? blocks[b].shared : std::min(shared, blocks[b].shared);
  merge_shared(call, rows, {blocks, count, 0}, shared);
  for (int64_t b = 0, row = 0; b < count; ++b) {
    const Keys after = b + 1 < count ? keys_of(call, blocks[b + 1], shared) : then ? keys_of(call, *then, 0) : Keys{};
    merge_own(call, rows, blocks[b], row, keys_of(call, blocks[b], shared), after);
    row += (blocks[b].last - blocks[b].first) * call.group;
  }
  each_row(call, rows, blocks, count, [&](int64_t row, int64_t token, int64_t head) {
    float* out = call.out.row(token, head);
    const float *sums = rows.sums + row * rows.columns, total = rows.total[row];
    for (int64_t i = 0; i < rows.width; ++i) out[i] = sums[i] / total;
    if (call.lse) call.lse[token * call.heads + head] = rows.peak[row] + std::log(total);
  });
}

int64_t most_queries(int64_t group) { return std::max<int64_t>(1, kMostRows / group); }

}  // namespace HWY_NAMESPACE
}  // namespace cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include "kernels.h"

namespace cpu {

HWY_EXPORT(attend);
HWY_EXPORT(most_queries);

Scores scores_of(const dse_operation& o) { return {float(o.scale), float(o.softcap), o.window}; }

int64_t checked_group(const dse_operation& o) {
  check_instruction_set();
  if (o.head_dim > 256) throw dse::Unsupported("heads of more than 256");
  return o.heads / o.kv_heads;
}

namespace {

using dse::Op;

int64_t shared_tiles(const AttentionCall& call, const QueryBlock& a, const QueryBlock& b) {
  if (!call.blocks || a.sequence == b.sequence) return 0;
  const auto whole = [&](const QueryBlock& block) { return (call.past(block.sequence) + block.first + 1) / kKeys; };
  const int64_t tiles = std::min(whole(a), whole(b));
  const int64_t *of_a = call.blocks + a.sequence * call.blocks_a_sequence,
                *of_b = call.blocks + b.sequence * call.blocks_a_sequence;
  int64_t same = 0;
  while (same * call.block_size < tiles * kKeys && of_a[same] == of_b[same]) ++same;
  return std::min(tiles, same * call.block_size / kKeys);
}

// Sequences' queries in blocks of at most `most`, into memory of the call's; returns how many.
int64_t cut_queries(const AttentionCall& call, int64_t sequences, int64_t most, QueryBlock* blocks) {
  int64_t count = 0;
  for (int64_t b = 0; b < sequences; ++b) {
    const int64_t queries = call.offsets[b + 1] - call.offsets[b];
    for (int64_t first = 0; first < queries; first += most, ++count) {
      blocks[count] = {b, first, std::min(queries, first + most), 0};
      if (count > 0) blocks[count].shared = shared_tiles(call, blocks[count - 1], blocks[count]);
    }
  }
  return count;
}

// How many of the blocks are one task: as far as one more saves more tiles than are no longer shared by all.
int64_t together(const QueryBlock* blocks, int64_t count, int64_t most) {
  int64_t queries = blocks[0].last - blocks[0].first, shared = 0, n = 1;
  for (; n < count; ++n) {
    queries += blocks[n].last - blocks[n].first;
    const int64_t left = n == 1 ? blocks[n].shared : std::min(shared, blocks[n].shared);
    if (queries > most || n * left <= (n - 1) * shared) break;
    shared = left;
  }
  return n;
}

// All of the blocks, in heads [kv, kv + heads), task by task.
void attend_all(const AttentionCall& call, const QueryBlock* blocks, int64_t count, int64_t kv, int64_t heads,
                int64_t most) {
  const auto attend_task = HWY_DYNAMIC_DISPATCH(attend);
  for (int64_t b = 0, some = 0; b < count; b += some) {
    some = together(blocks + b, count - b, most);
    int64_t queries = 0;
    for (int64_t i = 0; i < some; ++i) queries += blocks[b + i].last - blocks[b + i].first;
    const int64_t at_once = std::clamp<int64_t>(most / queries, 1, heads);
    for (int64_t h = 0; h < heads; h += at_once)
      attend_task(call, blocks + b, some, kv + h, std::min(at_once, heads - h),
                  b + some < count ? blocks + b + some : nullptr);
  }
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
    const int64_t most = HWY_DYNAMIC_DISPATCH(most_queries)(group);
    const int64_t count = cut_queries(c, call.input("offsets").shape[0] - 1, most, blocks);
    // Head by head: late queries see more keys, and each thread shall have some. Within a thread's part blocks that
    // share keys are one task, and so are their heads, for a token's keys lie side by side.
    dse::parallel_for(0, count * kv_heads, 1, [&](int64_t first, int64_t last) {
      while (first < last) {
        const int64_t block = first % count, whole = block == 0 ? (last - first) / count : 0;
        const int64_t blocks_here = whole > 0 ? count : std::min(last - first, count - block);
        attend_all(c, blocks + block, blocks_here, first / count, std::max<int64_t>(1, whole), most);
        first += blocks_here * std::max<int64_t>(1, whole);
      }
    });
  }

  int64_t heads, kv_heads, group;
  Scores scores;
};

}  // namespace

void add_attention(std::deque<dse::Item>& items) {
  items.push_back(dse::kernel_item<Attention<Op::attention>>("cpu_attention"));
  items.push_back(dse::kernel_item<Attention<Op::cached_attention>>("cpu_cached_attention"));
  add_attention_backward(items);
}

}  // namespace cpu
#endif
