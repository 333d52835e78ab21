// Causal attention over ragged sequences, exact and row by row: a query's result depends only on its own sequence, in a
// fixed order of summation. Training, prefill and cached decoding share it, so that a rollout's log-probs equal the
// training forward's.
//
// The forward keeps only the output and the log-sum-exp of each row (FlashAttention, Dao et al. 2022); the backward
// recomputes the probabilities.
#include <algorithm>
#include <cmath>
#include <vector>

#include "kernels.h"
#include "vector_math.h"

namespace cpu {
namespace {

using dse::Op;

float dot(const float* a, const float* b, int64_t n) {
  float sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

void add_scaled(float* y, const float* x, float factor, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

float capped(float score, float cap) { return cap > 0 ? cap * std::tanh(score / cap) : score; }

// [tokens, heads, D], or [blocks, tokens, heads, D]: a row is the last dimension, which is dense.
struct Heads {
  float* data;
  int64_t token_stride, head_stride, width;
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
  explicit Scores(const dse_operation& o) : scale(float(o.scale)), cap(float(o.softcap)), window(o.window) {}
  // The first of `keys` keys that the last of them sees.
  int64_t first_key(int64_t keys) const { return window > 0 ? std::max<int64_t>(0, keys - window) : 0; }
};

// Where a sequence's keys stand: adjacent rows, or blocks of a cache.
struct Adjacent {
  int64_t first;
  template <class F>
  void each(int64_t begin, int64_t end, const F& f) const {
    for (int64_t j = begin; j < end; ++j) f(j, first + j);
  }
};
struct InBlocks {
  const int64_t* blocks;
  int64_t block_size;
  template <class F>
  void each(int64_t begin, int64_t end, const F& f) const {
    while (begin < end) {
      const int64_t block = begin / block_size, stop = std::min(end, (block + 1) * block_size);
      const int64_t first = (blocks[block] - block) * block_size;
      for (; begin < stop; ++begin) f(begin, first + begin);
    }
  }
};

// y = softmax(q kᵀ) v of one query over the keys [unseen, all) of its sequence; returns the log-sum-exp.
template <class Places>
float attend(const float* q, const Heads& k, const Heads& v, int64_t kv, const Places& places, int64_t unseen,
             int64_t all, const Scores& scores, float* y) {
  static thread_local std::vector<float> kept;
  const int64_t keys = all - unseen, d = k.width;
  if (int64_t(kept.size()) < keys) kept.resize(size_t(keys));
  float* p = kept.data();
  float peak = -INFINITY;
  places.each(unseen, all, [&](int64_t j, int64_t row) {
    p[j - unseen] = capped(scores.scale * dot(q, k.row(row, kv), d), scores.cap);
    peak = std::max(peak, p[j - unseen]);
  });
#pragma omp simd
  for (int64_t j = 0; j < keys; ++j) p[j] = vector_exp(p[j] - peak);
  float sum = 0;
  for (int64_t j = 0; j < keys; ++j) sum += p[j];
  std::fill(y, y + d, 0.0f);
  places.each(unseen, all, [&](int64_t j, int64_t row) { add_scaled(y, v.row(row, kv), p[j - unseen] / sum, d); });
  return peak + std::log(sum);
}

// Of each token: its sequence. Into memory of the call's.
const int32_t* sequences_of_tokens(void* workspace, const int64_t* offsets, int64_t sequences) {
  auto* sequence = static_cast<int32_t*>(workspace);
  for (int64_t b = 0; b < sequences; ++b) std::fill(sequence + offsets[b], sequence + offsets[b + 1], int32_t(b));
  return sequence;
}

// One task a (token, head): sequences differ in length, tokens are many.
template <Op op>
struct Attention {
  static constexpr dse::KernelTraits traits{.op = op, .priority = 1, .row_invariant = true};
  static constexpr bool cached = op == Op::cached_attention;
  explicit Attention(const dse_operation& o) : heads(o.heads), group(o.heads / o.kv_heads), scores(o) {}
  int64_t workspace_bytes(int64_t rows) const { return rows * int64_t(sizeof(int32_t)); }

  void run(const dse::Call<op>& call) const {
    const Heads q(call.input("q")), o(call.output("out"));
    const Heads k(call.input(cached ? "keys" : "k")), v(call.input(cached ? "values" : "v"));
    const int64_t* offsets = call.template in<int64_t>("offsets");
    const int32_t* sequence = sequences_of_tokens(call.raw.workspace, offsets, call.input("offsets").shape[0] - 1);
    dse::parallel_for(0, call.rows() * heads, 16, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t token = task / heads, head = task % heads, kv = head / group, b = sequence[token];
        if constexpr (cached) {
          const int64_t after = offsets[b + 1] - token - 1;  // tokens of its sequence that it does not see
          const int64_t all = call.template in<int64_t>("key_counts")[b] - after;
          const InBlocks places{call.template in<int64_t>("blocks") + b * call.input("blocks").shape[1],
                                call.input("keys").shape[1]};
          attend(q.row(token, head), k, v, kv, places, scores.first_key(all), all, scores, o.row(token, head));
        } else {
          const int64_t all = token - offsets[b] + 1;
          const float sum = attend(q.row(token, head), k, v, kv, Adjacent{offsets[b]}, scores.first_key(all), all,
                                   scores, o.row(token, head));
          if (float* lse = call.template out<float>("lse")) lse[token * heads + head] = sum;
        }
      }
    });
  }

  int64_t heads, group;
  Scores scores;
};

struct AttentionBackward {
  static constexpr dse::KernelTraits traits{.op = Op::attention_backward, .priority = 1, .row_invariant = true};
  explicit AttentionBackward(const dse_operation& o)
      : heads(o.heads), kv_heads(o.kv_heads), group(o.heads / o.kv_heads), scores(o) {}

  void run(const dse::Call<traits.op>& call) const {
    const Heads q(call.input("q")), k(call.input("k")), v(call.input("v")), o(call.input("out"));
    const Heads g(call.input("d_out")), dq(call.output("dq")), dk(call.output("dk")), dv(call.output("dv"));
    const int64_t d = q.width;
    const float* lse = call.in<float>("lse");
    const int64_t* offsets = call.in<int64_t>("offsets");
    std::fill(dq.data, dq.data + call.rows() * heads * d, 0.0f);
    std::fill(dk.data, dk.data + call.rows() * kv_heads * d, 0.0f);
    std::fill(dv.data, dv.data + call.rows() * kv_heads * d, 0.0f);
    // A task owns one sequence's key-value head, so that nothing is summed across threads.
    dse::parallel_for(0, (call.input("offsets").shape[0] - 1) * kv_heads, 1, [&](int64_t begin, int64_t end) {
      for (int64_t task = begin; task < end; ++task) {
        const int64_t first = offsets[task / kv_heads], count = offsets[task / kv_heads + 1] - first;
        const int64_t kv = task % kv_heads;
        for (int64_t head = kv * group; head < (kv + 1) * group; ++head)
          for (int64_t i = 0; i < count; ++i) {
            const int64_t token = first + i;
            const float *grad = g.row(token, head), *query = q.row(token, head);
            const float delta = dot(grad, o.row(token, head), d), row_lse = lse[token * heads + head];
            for (int64_t j = scores.first_key(i + 1); j <= i; ++j) {
              const int64_t key = first + j;
              const float score = capped(scores.scale * dot(query, k.row(key, kv), d), scores.cap);
              const float p = vector_exp(score - row_lse);
              add_scaled(dv.row(key, kv), grad, p, d);
              float ds = scores.scale * p * (dot(grad, v.row(key, kv), d) - delta);
              if (scores.cap > 0) ds *= 1 - (score / scores.cap) * (score / scores.cap);
              add_scaled(dq.row(token, head), k.row(key, kv), ds, d);
              add_scaled(dk.row(key, kv), query, ds, d);
            }
          }
      }
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
