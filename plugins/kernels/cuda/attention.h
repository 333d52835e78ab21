// What a query attends to, for the kernels of attention: in a batch's own rows, or in a cache of blocks.
#pragma once
#include "rope.h"

namespace gpu {

// Rows of heads of a call's slot: D is dense.
template <class T>
struct Heads {
  const T* first;
  int64_t of_token, of_head;
  __device__ const T* row(int64_t token, int64_t head) const { return first + token * of_token + head * of_head; }
};
template <class T>
Heads<T> heads_of(const dse_array& a) {
  return {static_cast<const T*>(a.data), a.strides[0], a.strides[1]};
}
// Of a cache [P, S, Hk, D]: token P S.
template <class T>
Heads<T> cached_heads_of(const dse_array& a) {
  return {static_cast<const T*>(a.data), a.strides[1], a.strides[2]};
}

struct Scores {
  float scale, softcap;
  int64_t window;
  // The first key that the query behind key `last` sees.
  __device__ int64_t first_key(int64_t last) const { return window > 0 && last >= window ? last - window + 1 : 0; }
  // Of q·k: the score, and its slope.
  __device__ float of(float product, float* slope) const {
    const float s = product * scale;
    if (softcap <= 0) {
      *slope = scale;
      return s;
    }
    const float bent = tanhf(s / softcap);
    *slope = scale * (1 - bent * bent);
    return bent * softcap;
  }
};

// Ragged sequences [offsets[b], offsets[b + 1]); with blocks, their keys are those of a cache.
struct Sequences {
  const int64_t* offsets;
  int64_t count;
  const int64_t *blocks, *key_counts;  // null: of the batch itself
  int64_t blocks_of_sequence, block_size;

  // The sequence that has row n: of those that begin at or before it the last, which has rows where others have none.
  __device__ int64_t of_row(int64_t n) const {
    int64_t low = 0, high = count - 1;
    while (low < high) {
      const int64_t middle = (low + high + 1) / 2;
      if (offsets[middle] <= n)
        low = middle;
      else
        high = middle - 1;
    }
    return low;
  }
  // Which of its keys row n of sequence b is.
  __device__ int64_t place(int64_t b, int64_t n) const {
    return key_counts ? key_counts[b] - (offsets[b + 1] - n) : n - offsets[b];
  }
  // The row, of the batch or of the cache, in which key j of sequence b lies.
  __device__ int64_t key_row(int64_t b, int64_t j) const {
    return blocks ? blocks[b * blocks_of_sequence + j / block_size] * block_size + j % block_size : offsets[b] + j;
  }
};

// A call of attention.
template <class T>
struct Attending {
  Heads<T> q, k, v, d_out;
  const T* out;
  const float* lse;  // of the forward; [N, Hq]
  Sequences sequences;
  Scores scores;
  int64_t rows, heads, group, width;
  T *to, *dk, *dv;
  float *new_lse, *delta;
};

// Queries that are a sequence's only ones, in bfloat16, by tensor cores (attention_decode.cu).
bool attends_rows(const Attending<bf16>& a);  // where heads and memory allow it
void attend_rows(const Attending<bf16>& a, void* stream);

// From q | k | v on: what is before a token's attention in a step.
struct NewTokens {
  const bf16* qkv;  // [B, heads + 2 kv_heads, width]
  int64_t kv_heads;
  const int64_t *positions, *lengths, *rows;  // [B]; rows of the cache
  bf16 *keys, *values;                        // the cache's
  Turning turning;
};
void attend_new_tokens(const Attending<bf16>& a, const NewTokens& tokens, void* stream);

}  // namespace gpu
