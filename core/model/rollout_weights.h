// A model's linear weights as its rollouts read them, narrower than they are trained: a copy that is made anew after
// each change, and dropped when there is nothing to generate. Embeddings, norms, biases and an adapter's pairs are read
// as they are.
//
//   RolloutWeights narrow(graph, kernels, at::kFloat, Packing::int8);
//   narrow.pack(section, storage);                       // of each section; the head's index is the number of sections
//   narrow.of(section, block).forward(x, bias, residual)
//
// Borrows the graph and the kernels.
#pragma once
#include <map>
#include <utility>

#include "model/graph.h"
#include "ops/ops.h"
#include "param/storage.h"

namespace dsengine {

class RolloutWeights {
 public:
  RolloutWeights(const ModelGraph& graph, const Kernels& kernels, at::ScalarType dtype, Packing packing);

  class Linear {
   public:
    at::Tensor forward(const at::Tensor& x, const at::Tensor& bias, const at::Tensor& residual) const;

   private:
    friend class RolloutWeights;
    explicit Linear(const ops::PackedLinear& op) : op_(op) {}
    ops::PackedLinear op_;
    at::Tensor packed_;
  };
  // Of a linear's weight.
  const Linear& of(size_t section, int block) const { return linears_.at({section, block}); }
  const Linear& head() const { return of(graph_.sections.size(), 0); }

  // From the storage that a section's linears, or the head, are blocks of.
  void pack(size_t section, const ParamStorage& unit);
  void drop();

 private:
  const ModelGraph& graph_;
  std::map<std::pair<size_t, int>, Linear> linears_;  // of the head: block 0
};

}  // namespace dsengine
