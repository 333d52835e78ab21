// Causal attention over ragged sequences, exact and row by row: a query's result depends only on its own
// sequence, in a fixed order of summation. Training, prefill and cached decoding share it, so a rollout's
// log-probs equal the training forward's.
//
//   attention_forward({.q = q, .k = k, .v = v, .q_offsets = offsets, …}, out_NHqD, lse_NHq);
//
// The forward keeps only the output and the log-sum-exp of each row (FlashAttention, Dao et al. 2022); the
// backward recomputes the probabilities. CPU, float32 and float64.
#pragma once
#include <ATen/core/Tensor.h>

#include <vector>

#include "model/graph.h"

namespace dsengine {

// Legend: N new tokens, Hq query heads, Hk key-value heads (Hq a multiple), D head dimension, B sequences.
struct RaggedAttention {
  at::Tensor q;                      // [N, Hq, D], last dimension dense
  const int64_t* offsets = nullptr;  // [B + 1]: sequence b has the new tokens [offsets[b], offsets[b+1])
  int64_t sequences = 0;
  AttentionScores scores;
  // Keys and values: sequence b's key j is at row key_begin[b] + j of k and v, j = 0 … key_count[b] - 1. Its
  // new tokens are the last of them. Both null: the new tokens alone (k and v are [N, Hk, D]).
  at::Tensor k, v;  // [rows, Hk, D]
  const int64_t* key_begin = nullptr;
  const int64_t* key_count = nullptr;
};

// out [N, Hq, D]; lse [N, Hq] may be undefined.
void attention_forward(const RaggedAttention& a, at::Tensor& out, at::Tensor& lse);
// Gradients of q, k, v (allocated dense by the caller, zeroed here) where keys are the new tokens.
void attention_backward(const RaggedAttention& a, const at::Tensor& out, const at::Tensor& lse, const at::Tensor& d_out,
                        at::Tensor& dq, at::Tensor& dk, at::Tensor& dv);

}  // namespace dsengine
