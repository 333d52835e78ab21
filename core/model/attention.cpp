#include "model/attention.h"

#include <ATen/Dispatch.h>
#include <ATen/Parallel.h>

#include <cmath>

#include "base/check.h"
#include "model/vector_math.h"

namespace dsengine {

namespace {

template <class T>
T dot(const T* a, const T* b, int64_t n) {
  T sum = 0;
#pragma omp simd reduction(+ : sum)
  for (int64_t i = 0; i < n; ++i) sum += a[i] * b[i];
  return sum;
}

template <class T>
void add_scaled(T* y, const T* x, T factor, int64_t n) {
#pragma omp simd
  for (int64_t i = 0; i < n; ++i) y[i] += factor * x[i];
}

// Rows of [tokens, heads, D] with a token stride.
template <class T>
struct Heads {
  T* data;
  int64_t token_stride, head_stride, width;
  explicit Heads(const at::Tensor& t)
      : data(const_cast<T*>(t.const_data_ptr<T>())),
        token_stride(t.stride(0)),
        head_stride(t.stride(1)),
        width(t.size(2)) {
    DSE_CHECK(t.dim() == 3 && t.stride(2) == 1, "attention wants [tokens, heads, D] with D dense");
  }
  T* row(int64_t token, int64_t head) const { return data + token * token_stride + head * head_stride; }
};

struct Span {
  int64_t first, count, key_first, past;  // new tokens; key row of the sequence's start; keys before the new ones
};

Span span_of(const RaggedAttention& a, int64_t b) {
  const int64_t first = a.offsets[b], count = a.offsets[b + 1] - first;
  return a.key_begin ? Span{first, count, a.key_begin[b], a.key_count[b] - count} : Span{first, count, first, 0};
}

// The first of `keys` keys that the last of them sees.
int64_t first_key(const AttentionScores& s, int64_t keys) {
  return s.window > 0 ? std::max<int64_t>(0, keys - s.window) : 0;
}

template <class T>
T capped(T score, T cap) {
  return cap > 0 ? cap * std::tanh(score / cap) : score;
}

template <class T>
void forward(const RaggedAttention& a, at::Tensor& out, at::Tensor& lse) {
  const Heads<T> q(a.q), k(a.k), v(a.v), o(out);
  const int64_t heads = a.q.size(1), group = heads / a.k.size(1), d = q.width;
  const T scale = T(a.scores.scale), cap = T(a.scores.softcap);
  T* lse_data = lse.defined() ? lse.mutable_data_ptr<T>() : nullptr;
  // One task a (token, head): sequences differ in length, tokens are many.
  const int64_t tokens = a.q.size(0);
  std::vector<int32_t> sequence(tokens);
  for (int64_t b = 0; b < a.sequences; ++b)
    std::fill(sequence.begin() + a.offsets[b], sequence.begin() + a.offsets[b + 1], int32_t(b));
  at::parallel_for(0, tokens * heads, 16, [&](int64_t begin, int64_t end) {
    std::vector<T> p;
    for (int64_t task = begin; task < end; ++task) {
      const int64_t token = task / heads, head = task % heads, kv = head / group;
      const Span s = span_of(a, sequence[token]);
      const int64_t all = s.past + token - s.first + 1, unseen = first_key(a.scores, all), keys = all - unseen;
      const int64_t first = s.key_first + unseen;
      p.resize(keys);
      T peak = -INFINITY;
      for (int64_t j = 0; j < keys; ++j) {
        p[j] = capped(scale * dot(q.row(token, head), k.row(first + j, kv), d), cap);
        peak = std::max(peak, p[j]);
      }
#pragma omp simd
      for (int64_t j = 0; j < keys; ++j) p[j] = vector_exp(p[j] - peak);
      T sum = 0;
      for (int64_t j = 0; j < keys; ++j) sum += p[j];
      T* y = o.row(token, head);
      std::fill(y, y + d, T(0));
      for (int64_t j = 0; j < keys; ++j) add_scaled(y, v.row(first + j, kv), p[j] / sum, d);
      if (lse_data) lse_data[token * heads + head] = peak + std::log(sum);
    }
  });
}

template <class T>
void backward(const RaggedAttention& a, const at::Tensor& out, const at::Tensor& lse, const at::Tensor& d_out,
              at::Tensor& dq_, at::Tensor& dk_, at::Tensor& dv_) {
  const Heads<T> q(a.q), k(a.k), v(a.v), o(out), dout(d_out), dq(dq_), dk(dk_), dv(dv_);
  const int64_t heads = a.q.size(1), kv_heads = a.k.size(1), group = heads / kv_heads, d = q.width;
  const T scale = T(a.scores.scale), cap = T(a.scores.softcap);
  const T* lse_data = lse.const_data_ptr<T>();
  dq_.zero_(), dk_.zero_(), dv_.zero_();
  // A task owns one sequence's key-value head, so that nothing is summed across threads.
  at::parallel_for(0, a.sequences * kv_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t task = begin; task < end; ++task) {
      const Span s = span_of(a, task / kv_heads);
      const int64_t kv = task % kv_heads;
      for (int64_t head = kv * group; head < (kv + 1) * group; ++head) {
        for (int64_t i = 0; i < s.count; ++i) {
          const int64_t token = s.first + i;
          const T* g = dout.row(token, head);
          const T delta = dot(g, o.row(token, head), d);
          const T row_lse = lse_data[token * heads + head];
          for (int64_t j = first_key(a.scores, i + 1); j <= i; ++j) {
            const int64_t key = s.key_first + j;
            const T score = capped(scale * dot(q.row(token, head), k.row(key, kv), d), cap);
            const T p = vector_exp(score - row_lse);
            add_scaled(dv.row(key, kv), g, p, d);
            T ds = scale * p * (dot(g, v.row(key, kv), d) - delta);
            if (cap > 0) ds *= 1 - (score / cap) * (score / cap);
            add_scaled(dq.row(token, head), k.row(key, kv), ds, d);
            add_scaled(dk.row(key, kv), q.row(token, head), ds, d);
          }
        }
      }
    }
  });
}

}  // namespace

void attention_forward(const RaggedAttention& a, at::Tensor& out, at::Tensor& lse) {
  AT_DISPATCH_FLOATING_TYPES(a.q.scalar_type(), "attention", [&] { forward<scalar_t>(a, out, lse); });
}

void attention_backward(const RaggedAttention& a, const at::Tensor& out, const at::Tensor& lse, const at::Tensor& d_out,
                        at::Tensor& dq, at::Tensor& dk, at::Tensor& dv) {
  DSE_CHECK(!a.key_begin, "the backward of cached attention is never wanted");
  AT_DISPATCH_FLOATING_TYPES(a.q.scalar_type(), "attention",
                             [&] { backward<scalar_t>(a, out, lse, d_out, dq, dk, dv); });
}

}  // namespace dsengine
