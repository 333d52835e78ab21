// One call of attention as the instruction sets' code gets it, and the ranges of its work. Queries of a sequence are
// cut into blocks; a task is a block and a key-value head, whose queries of all heads that share it are its rows.
#pragma once
#include <dsengine/kernel.hpp>

#include <cstdint>

namespace cpu {

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
  // Where key j of sequence b stands.
  int64_t key_row(int64_t b, int64_t j) const {
    return blocks ? blocks[b * blocks_a_sequence + j / block_size] * block_size + j % block_size : offsets[b] + j;
  }
};

struct AttentionSlopes {
  AttentionCall forward;  // its out and lse are read
  Heads d_out, dq, dk, dv;
};

// Queries [first, last) of a sequence, counted from its first in the batch.
struct QueryBlock {
  int64_t sequence, first, last;
};

}  // namespace cpu
