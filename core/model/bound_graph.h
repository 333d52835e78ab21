// A graph's operators bound to the operations that run them: for each the kernel that serves it, or the reference.
//
//   const BoundGraph bound(graph, kernels, at::kFloat);
//   autograd::rms_norm(*bound.sections[s][i].rms_norm, x, weight);      // operator i of section s
//
// Immutable; borrows Kernels.
#pragma once
#include <optional>
#include <vector>

#include "model/graph.h"
#include "ops/ops.h"

namespace dsengine {

// Of an operator those are set that it is made of.
struct BoundOperator {
  std::optional<ops::Embedding> embedding;
  std::optional<ops::RmsNorm> rms_norm, q_norm, k_norm;
  std::optional<ops::LayerNorm> layer_norm;
  std::optional<ops::Linear> linear, out_linear;  // of Operator::weight and out_weight
  std::optional<ops::Rope> rope;
  std::optional<ops::Attention> attention;
  std::optional<ops::Activate> activate;
  std::optional<ops::GatedActivate> gated_activate;
  // In generation in place of the above, where kernels do them whole.
  std::optional<ops::LinearActivate> linear_activate;
  std::optional<ops::CachedStep> cached_step;
  std::vector<int> last_reads;  // values that nothing after it reads
  // A linear's output that an add alone reads is added to as it is made: what the linear adds, and what the add then
  // is. -1: none.
  int residual = -1, sum = -1;
};

struct BoundGraph {
  BoundGraph(const ModelGraph& graph, const Kernels& kernels, at::ScalarType dtype);
  // All of the forward is, head and all: then a rollout's log-probabilities are a training forward's.
  bool row_invariant() const;
  std::vector<std::vector<BoundOperator>> sections;
  ops::LogProb head;       // of a language model
  ops::Linear value_head;  // of a reward model or critic
};

}  // namespace dsengine
