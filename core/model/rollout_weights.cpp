#include "model/rollout_weights.h"

#include "base/check.h"
#include "memory/ledger.h"

namespace dsengine {

using at::Tensor;

RolloutWeights::RolloutWeights(const ModelGraph& graph, const Kernels& kernels, at::ScalarType dtype, Packing packing)
    : graph_(graph) {
  const auto add = [&](size_t section, int block, int64_t in, int64_t out) {
    linears_.emplace(std::pair(section, block), Linear(ops::PackedLinear(kernels, dtype, in, out, packing)));
  };
  for (size_t s = 0; s < graph.sections.size(); ++s)
    for (const auto& op : graph.sections[s].operators) {
      const bool linear = op.kind == Operator::linear || op.out_weight >= 0;
      for (const int block : {linear ? op.weight : -1, op.out_weight})
        if (block >= 0)
          add(s, block, graph.sections[s].blocks[size_t(block)].row_numel(),
              graph.sections[s].blocks[size_t(block)].rows());
    }
  add(graph.sections.size(), 0, graph.width, graph.vocabulary);
}

Tensor RolloutWeights::Linear::forward(const Tensor& x, const Tensor& bias, const Tensor& residual) const {
  DSE_CHECK(packed_.defined(), "rollout weights are read before they are packed");
  return op_.forward(x, packed_, bias, residual);
}

void RolloutWeights::pack(size_t section, const ParamStorage& unit) {
  const MemoryScope scope(MemoryTag::rollout_weights);
  const bool head = section == graph_.sections.size();
  for (auto& [place, linear] : linears_) {
    if (place.first != section) continue;
    const size_t block = head && graph_.head_tied ? size_t(graph_.tied_block) : size_t(place.second);
    linear.packed_ = Tensor();  // before there is another
    linear.packed_ = linear.op_.pack(unit.block(block));
  }
}

void RolloutWeights::drop() {
  for (auto& [_, linear] : linears_) linear.packed_ = Tensor();
}

}  // namespace dsengine
