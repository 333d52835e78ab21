// The operations of the catalogue, bound: each call is the plugin's kernel where one serves the operation, else the
// reference. No autograd here: model/autograd says what is kept for a backward, and calls these.
//
//   const ops::Linear project(kernels, at::kFloat, width, 3 * width);      // once, when a model is built
//   at::Tensor y = project.forward(x, weight, bias);                        // any number of rows
//   at::Tensor dx = project.backward(dy, weight);
//   project.weight_backward(dy, x, d_weight, d_bias);                       // adds to what is there
//
// Shapes and slots: sdk/include/dsengine/catalogue.hpp. Legend: N rows, I and O widths, Hq, Hk heads, D head dimension,
// B sequences. Tensors are dense unless said; an undefined one is an optional slot left empty. They borrow Kernels.
//
// row_invariant: a forward's rows have the same bits in any batch, in training and from a cache, for the kernels that
// serve it say so. What only copies rows (Embedding) needs no kernel for it.
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/kernels.h"
#include "ops/results.h"

namespace dsengine::ops {

class Linear {
 public:
  Linear(const Kernels& kernels, at::ScalarType dtype, int64_t in, int64_t out);
  at::Tensor forward(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b = {},
                     const at::Tensor& residual = {}) const;
  // Without a bias; y is float32 where x is bfloat16.
  at::Tensor forward_wide(const at::Tensor& x, const at::Tensor& w) const;
  at::Tensor backward(const at::Tensor& dy, const at::Tensor& w) const;
  void weight_backward(const at::Tensor& dy, const at::Tensor& x, at::Tensor dw, at::Tensor db) const;
  bool row_invariant() const;
  bool same_library(const BoundKernel& other) const { return forward_.same_library(other); }

 private:
  BoundKernel forward_, backward_, weight_backward_;
};

// A linear whose weight a rollout reads narrower.
class PackedLinear {
 public:
  PackedLinear(const Kernels& kernels, at::ScalarType dtype, int64_t in, int64_t out, Packing packing);
  at::Tensor pack(const at::Tensor& w) const;  // bytes, as the catalogue lays them out
  at::Tensor forward(const at::Tensor& x, const at::Tensor& packed, const at::Tensor& b = {},
                     const at::Tensor& residual = {}) const;

 private:
  int64_t in_, out_;
  Packing packing_;
  BoundKernel pack_, forward_;
};

class Embedding {
 public:
  Embedding(const Kernels& kernels, at::ScalarType dtype, int64_t rows, int64_t width);
  at::Tensor forward(const at::Tensor& table, const at::Tensor& ids) const;
  void weight_backward(const at::Tensor& dy, const at::Tensor& ids, at::Tensor dtable) const;
  bool row_invariant() const;

 private:
  BoundKernel forward_, weight_backward_;
};

class RmsNorm {
 public:
  RmsNorm(const Kernels& kernels, at::ScalarType dtype, int64_t width, double eps, double shift = 0);
  RmsNormed forward(const at::Tensor& x, const at::Tensor& w) const;
  at::Tensor backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w, const at::Tensor& rstd) const;
  void weight_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& rstd, at::Tensor dw) const;
  bool row_invariant() const;

 private:
  double eps_, shift_;
  BoundKernel forward_, backward_, weight_backward_;
};

class LayerNorm {
 public:
  LayerNorm(const Kernels& kernels, at::ScalarType dtype, int64_t width, double eps);
  LayerNormed forward(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) const;
  at::Tensor backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& w, const at::Tensor& mean,
                      const at::Tensor& rstd) const;
  void weight_backward(const at::Tensor& dy, const at::Tensor& x, const at::Tensor& mean, const at::Tensor& rstd,
                       at::Tensor dw, at::Tensor db) const;
  bool row_invariant() const;

 private:
  double eps_;
  BoundKernel forward_, backward_, weight_backward_;
};

class Activate {
 public:
  Activate(const Kernels& kernels, at::ScalarType dtype, int64_t width, Activation activation);
  at::Tensor forward(const at::Tensor& x) const;
  at::Tensor backward(const at::Tensor& dy, const at::Tensor& x) const;
  bool row_invariant() const;

 private:
  Activation activation_;
  BoundKernel forward_, backward_;
};

// x = gate | up [N, 2 W] -> activation(gate) up [N, W].
class GatedActivate {
 public:
  GatedActivate(const Kernels& kernels, at::ScalarType dtype, int64_t width, Activation activation);
  at::Tensor forward(const at::Tensor& x) const;
  at::Tensor backward(const at::Tensor& dy, const at::Tensor& x) const;
  bool row_invariant() const;

 private:
  int64_t width_;
  Activate activate_;  // what both are made of where no kernel serves them whole
  BoundKernel forward_, backward_;
};

// A linear layer and its activation in one, where a kernel has both; gated: w is gate | up. For generation.
class LinearActivate {
 public:
  LinearActivate(const Kernels& kernels, at::ScalarType dtype, int64_t in, int64_t width, Activation activation,
                 bool gated);
  explicit operator bool() const { return bool(kernel_); }
  at::Tensor forward(const at::Tensor& x, const at::Tensor& w, const at::Tensor& b) const;

 private:
  int64_t width_;
  BoundKernel kernel_;
};

class Rope {
 public:
  // Of `heads` heads the first `turned` turn.
  Rope(const Kernels& kernels, at::ScalarType dtype, int64_t heads, int64_t turned, int64_t head_dim,
       const RopeSpec& rope);
  at::Tensor forward(const at::Tensor& x, const at::Tensor& positions, const at::Tensor& lengths) const;
  at::Tensor backward(const at::Tensor& dy, const at::Tensor& positions, const at::Tensor& lengths) const;
  bool row_invariant() const;

 private:
  int64_t turned_;
  RopeSpec rope_;
  at::Tensor frequencies_, long_frequencies_;  // on the device
  BoundKernel forward_, backward_;
};

class Attention {
 public:
  Attention(const Kernels& kernels, at::ScalarType dtype, int64_t heads, int64_t kv_heads, int64_t head_dim,
            const AttentionScores& scores);
  // Ragged sequences that begin in the batch. Of q, k and v D is dense, the other strides are any.
  Attended forward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Batch& batch,
                   bool want_lse) const;
  AttentionGradients backward(const at::Tensor& d_out, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const Attended& result, const Batch& batch) const;

  // Over a cache: keys and values [P, S, Hk, D].
  void write(const at::Tensor& k, const at::Tensor& v, const CachePlaces& places, at::Tensor& keys,
             at::Tensor& values) const;
  at::Tensor cached(const at::Tensor& q, const at::Tensor& keys, const at::Tensor& values, const CachePlaces& places,
                    const Batch& batch) const;
  bool row_invariant() const;

 private:
  AttentionScores scores_;
  bool flash_ = false;  // forward and backward are LibTorch's
  BoundKernel forward_, backward_, write_, cached_;
};

// A token of each sequence, from q | k | v on: rope, the cache's write, attention; where a kernel has all of it.
class CachedStep {
 public:
  CachedStep(const Kernels& kernels, at::ScalarType dtype, int64_t heads, int64_t kv_heads, int64_t head_dim,
             const AttentionScores& scores, const RopeSpec& rope);
  explicit operator bool() const { return bool(kernel_); }
  // qkv [B, Hq + 2 Hk, D] -> [B, Hq, D].
  at::Tensor forward(const at::Tensor& qkv, const Batch& batch, const CachePlaces& places, at::Tensor& keys,
                     at::Tensor& values) const;

 private:
  int64_t heads_;
  BoundKernel kernel_;
};

// The head of a language model, in chunks of rows where no kernel serves it whole, so that a batch's logits are never
// kept.
class LogProb {
 public:
  LogProb(const Kernels& kernels, at::ScalarType dtype, int64_t width, int64_t vocabulary, double softcap);
  struct Result {
    at::Tensor logp, lse, entropy;  // [N]; entropy: undefined unless asked for
  };
  Result forward(const at::Tensor& x, const at::Tensor& head, const at::Tensor& targets, double temperature,
                 bool want_entropy) const;
  // dx; dhead, where it is defined, is added to. d_entropy may be undefined.
  at::Tensor backward(const at::Tensor& d_logp, const at::Tensor& d_entropy, const at::Tensor& x,
                      const at::Tensor& head, const at::Tensor& targets, const Result& result, double temperature,
                      at::Tensor dhead) const;
  // [N, V]: softcap(x headᵀ), for sampling.
  at::Tensor logits(const at::Tensor& x, const at::Tensor& head) const;
  at::Tensor capped(at::Tensor logits) const;  // in place
  // Of such logits, each row at a temperature of its own [N] float32: logp = target_logit - lse has the bits that
  // forward gives it, where kernels serve both or neither.
  LogitSums sums(const at::Tensor& logits, const at::Tensor& temperatures, const at::Tensor& targets,
                 bool want_mean) const;
  // The next token of each row, and its sums; draws [N] float64, below 0: the likeliest.
  Drawn draw(const at::Tensor& logits, const at::Tensor& temperatures, const at::Tensor& draws) const;
  bool row_invariant() const;

 private:
  double softcap_;
  Linear linear_;
  BoundKernel forward_, backward_, sums_, draw_, softcap_kernel_;
};

class SumOfSquares {
 public:
  explicit SumOfSquares(const Kernels& kernels);
  // Of float32 elements, in float64; read on the host.
  double operator()(const at::Tensor& x) const;

 private:
  BoundKernel kernel_;
};

class AdamWUpdate {
 public:
  explicit AdamWUpdate(const Kernels& kernels);
  void operator()(const at::Tensor& gradient, at::Tensor w, at::Tensor m, at::Tensor v,
                  const AdamWNumbers& numbers) const;

 private:
  BoundKernel kernel_;
};

// float32 to bfloat16, up or down with the probability that keeps the mean; where no kernel does, on the host.
class StochasticRound {
 public:
  explicit StochasticRound(const Kernels& kernels);
  // x, y [N]: elements [first, first + N) of those that the draws count.
  void operator()(const at::Tensor& x, at::Tensor y, int64_t first, const RoundingDraws& draws) const;

 private:
  BoundKernel kernel_;
};

}  // namespace dsengine::ops
