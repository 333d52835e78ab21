// One call of attention as the instruction sets' code gets it, and the ranges of its work. Queries of a sequence are
// cut into blocks. A task is a key-value head and one block, or adjacent ones of sequences that begin with the same
// blocks of the cache; its rows are the blocks' queries in all heads that share the key-value head.
#pragma once
#include <dsengine/kernel.hpp>

#include <algorithm>
#include <cstdint>
#include <deque>

namespace cpu {

constexpr int64_t kKeys = 32;  // of a tile

// [tokens, heads, D], or [blocks, tokens, heads, D]: a row is the last dimension, which is dense.
struct Heads {
  float* data = nullptr;
  int64_t token_stride = 0, head_stride = 0, width = 0;
  Heads() = default;
  explicit Heads(const dse_array& t)
      : data(static_cast<float*>(t.data)),
        token_stride(t.strides[t.rank - 3]),
        head_stride(t.strides[t.rank - 2]),
        width(t.shape[t.rank - 1]) {}
  float* row(int64_t token, int64_t head) const { return data + token * token_stride + head * head_stride; }
};

struct Scores {
  float scale, cap;
  int64_t window;
  // The first of the keys that key number `own`, the query's own, sees.
  int64_t first_key(int64_t own) const { return window > 0 && own >= window ? own - window + 1 : 0; }
};

struct AttentionCall {
  Heads q, k, v, out;
  float* lse = nullptr;  // [tokens, heads]; may be null
  const int64_t* offsets = nullptr;
  // Of a cache; null: the keys are the batch's own tokens.
  const int64_t *blocks = nullptr, *key_counts = nullptr;
  int64_t blocks_a_sequence = 0, block_size = 0;
  int64_t heads = 0, group = 0;  // heads that share a key-value head
  Scores scores{};

  int64_t past(int64_t b) const { return key_counts ? key_counts[b] - (offsets[b + 1] - offsets[b]) : 0; }
  // Where keys [first, first + count) of sequence b stand; beyond them, up to a tile of kKeys, the last one again: its
  // scores there are nobody's.
  void key_rows(int64_t b, int64_t first, int64_t count, int64_t* rows) const {
    if (blocks) {
      const int64_t* block = blocks + b * blocks_a_sequence + first / block_size;
      for (int64_t j = 0, i = first % block_size; j < count; ++j, ++i) {
        if (i == block_size) ++block, i = 0;
        rows[j] = *block * block_size + i;
      }
    } else {
      for (int64_t j = 0; j < count; ++j) rows[j] = offsets[b] + first + j;
    }
    std::fill(rows + count, rows + kKeys, rows[count - 1]);
  }
};

struct AttentionSlopes {
  AttentionCall forward;  // its out and lse are read
  Heads d_out, dq, dk, dv;
};

// Queries [first, last) of a sequence, counted from its first in the batch.
struct QueryBlock {
  int64_t sequence, first, last;
  int64_t
      shared;  // the first tiles of keys, whole and before all the queries, that the block before has in the same rows
};

// Of an operation that is to be bound; Unsupported where the kernels cannot serve it.
Scores scores_of(const dse_operation& o);
int64_t checked_group(const dse_operation& o);

void add_attention_backward(std::deque<dse::Item>& items);

}  // namespace cpu
