#include "model/bound_graph.h"

#include <set>

#include "base/check.h"

namespace dsengine {

namespace {

class Binder {
 public:
  Binder(const Kernels& kernels, at::ScalarType dtype) : kernels_(kernels), dtype_(dtype) {}

  BoundOperator bind(const Operator& op, const Section& section) const {
    BoundOperator b;
    if (op.weight >= 0 && op.kind != Operator::rms_norm && op.kind != Operator::layer_norm) {
      const ParamBlock& block = section.blocks[size_t(op.weight)];
      if (op.kind == Operator::embed || op.kind == Operator::positions)
        b.embedding.emplace(kernels_, dtype_, block.rows(), block.row_numel());
      else
        b.linear = linear(section, op.weight, op.bias);
    }
    if (op.out_weight >= 0) b.out_linear = linear(section, op.out_weight, op.out_bias);
    switch (op.kind) {
      case Operator::rms_norm:
        b.rms_norm.emplace(kernels_, dtype_, op.width, op.eps, op.shift);
        break;
      case Operator::layer_norm:
        b.layer_norm.emplace(kernels_, dtype_, op.width, op.eps);
        break;
      case Operator::attention:
        bind_attention(op, b);
        break;
      case Operator::gated_mlp:
      case Operator::mlp:
        bind_mlp(op, section.blocks[size_t(op.weight)], b);
        break;
      default:
        break;
    }
    return b;
  }

 private:
  ops::Linear linear(const Section& section, int weight, int bias) const {
    const ParamBlock& block = section.blocks[size_t(weight)];
    DSE_CHECK(bias < 0 || section.blocks[size_t(bias)].interleave == block.interleave,
              "{}: a bias lies otherwise than its weight", section.name);
    return {kernels_, dtype_, block.row_numel(), block.rows()};
  }
  void bind_mlp(const Operator& op, const ParamBlock& block, BoundOperator& b) const {
    const bool gated = op.kind == Operator::gated_mlp;
    const int64_t width = gated ? block.rows() / 2 : block.rows();
    if (gated)
      b.gated_activate.emplace(kernels_, dtype_, width, op.activation);
    else
      b.activate.emplace(kernels_, dtype_, width, op.activation);
    if (block.interleave > 0) return;
    b.linear_activate.emplace(kernels_, dtype_, block.row_numel(), width, op.activation, gated);
    if (!*b.linear_activate) b.linear_activate.reset();
  }
  void bind_attention(const Operator& op, BoundOperator& b) const {
    if (op.q_norm >= 0) b.q_norm.emplace(kernels_, dtype_, op.head_dim, op.eps);
    if (op.k_norm >= 0) b.k_norm.emplace(kernels_, dtype_, op.head_dim, op.eps);
    if (!op.rope.frequencies.empty())
      b.rope.emplace(kernels_, dtype_, op.heads + 2 * op.kv_heads, op.heads + op.kv_heads, op.head_dim, op.rope);
    b.attention.emplace(kernels_, dtype_, op.heads, op.kv_heads, op.head_dim, op.scores);
    if (b.q_norm || b.k_norm) return;
    b.cached_step.emplace(kernels_, dtype_, op.heads, op.kv_heads, op.head_dim, op.scores, op.rope);
    if (!*b.cached_step) b.cached_step.reset();
  }

  const Kernels& kernels_;
  at::ScalarType dtype_;
};

// Of each operator: the values that it is the last to read, or makes and nobody reads. The section's output stays.
void find_last_reads(const Section& section, std::vector<BoundOperator>& bound) {
  std::set<int> read{section.output};
  for (size_t i = section.operators.size(); i-- > 0;) {
    const Operator& op = section.operators[i];
    std::vector<int> values = op.inputs;
    values.push_back(op.output);
    for (const int value : values)
      if (read.insert(value).second) bound[i].last_reads.push_back(value);
  }
}

// The last linear's weight of an operator that ends with one; -1: none.
int last_weight(const Operator& op) { return op.kind == Operator::linear ? op.weight : op.out_weight; }

void join_residuals(const Section& section, std::vector<BoundOperator>& bound) {
  std::set<int> known{section.input};  // values, before the operator at hand
  for (size_t i = 0; i < section.operators.size(); known.insert(section.operators[i++].output)) {
    const Operator& op = section.operators[i];
    const int weight = last_weight(op), made = op.output;
    if (weight < 0 || section.blocks[size_t(weight)].interleave > 0 || made == section.output) continue;
    std::vector<size_t> readers;
    for (size_t j = i + 1; j < section.operators.size(); ++j)
      for (const int input : section.operators[j].inputs)
        if (input == made) readers.push_back(j);
    if (readers.size() != 1 || section.operators[readers[0]].kind != Operator::add) continue;
    const auto& inputs = section.operators[readers[0]].inputs;
    const int other = inputs[0] == made ? inputs[1] : inputs[0];
    if (!known.contains(other)) continue;
    bound[i].residual = other, bound[readers[0]].sum = made;
  }
}

}  // namespace

BoundGraph::BoundGraph(const ModelGraph& graph, const Kernels& kernels, at::ScalarType dtype)
    : head(kernels, dtype, graph.width, graph.vocabulary, graph.logit_softcap),
      value_head(kernels, dtype, graph.width, 1) {
  const Binder binder(kernels, dtype);
  for (const auto& section : graph.sections) {
    auto& bound = sections.emplace_back();
    for (const auto& op : section.operators) bound.push_back(binder.bind(op, section));
    find_last_reads(section, bound);
    join_residuals(section, bound);
  }
}

bool BoundGraph::row_invariant() const {
  const auto holds = [](const auto& op) { return !op || op->row_invariant(); };
  for (const auto& section : sections)
    for (const auto& b : section)
      if (b.linear_activate || b.cached_step || !holds(b.embedding) || !holds(b.rms_norm) || !holds(b.q_norm) ||
          !holds(b.k_norm) || !holds(b.layer_norm) || !holds(b.linear) || !holds(b.out_linear) || !holds(b.rope) ||
          !holds(b.attention) || !holds(b.activate) || !holds(b.gated_activate))
        return false;
  return head.row_invariant();
}

}  // namespace dsengine
