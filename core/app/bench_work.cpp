#include "app/bench_work.h"

namespace dsengine {

ModelWork ModelWork::of(const Model& model) {
  ModelWork work;
  work.size = int64_t(c10::elementSize(model.dtype()));
  for (const auto* unit : model.units())
    for (const auto& block : unit->blocks())
      for (const auto& spec : block.parts) {
        int64_t count = 1;
        for (const int64_t size : spec.shape) count *= size;
        const bool table = spec.role == ParamRole::embedding || spec.role == ParamRole::positions;
        const bool output = spec.role == ParamRole::head || spec.role == ParamRole::value_head;
        if (table || output) continue;
        (spec.shape.size() > 1 ? work.matrices : work.others) += count;
      }
  if (model.kind() != ModelKind::language) return work;
  const auto& graph = model.graph();
  work.head = graph.head.shape[0] * graph.head.shape[1];
  return work;
}

double ModelWork::read_bytes(Packing packing) const {
  const double weight = packing == Packing::bf16 ? 2 : packing == Packing::int8 ? 1 + 2.0 / 32 : double(size);
  return double(matrices + head) * weight + double(others * size);
}

}  // namespace dsengine
