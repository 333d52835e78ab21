// Causal attention in tiles of 32 keys, which are counted from a sequence's first key and merged in order
// (FlashAttention, Dao et al. 2022): so a query's bits depend on its own sequence alone, and are the same in training,
// in a prefill and from a cache, whatever the blocks it is computed in. Tiles that sequences of a cache share are read
// once for the rows of all of them; then each goes on with its own.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "attention.cpp"
#include "targets.h"
// after targets.h
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "attention_tile-inl.h"
#include "scratch.h"

HWY_BEFORE_NAMESPACE();
namespace cpu {
namespace HWY_NAMESPACE {

constexpr int64_t kMostRows = 4 * kRows;  // of a task, unless one query has more
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
    for (int64_t h = 0; h < heads; h += at_once) {
      const bool ends = h + at_once >= heads && b + some < count;
      attend_task(call, blocks + b, some, kv + h, std::min(at_once, heads - h), ends ? blocks + b + some : nullptr);
    }
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
