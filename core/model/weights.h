// A model's parameters, by section: what the executor reads and the optimizer changes.
//
//   for (auto* unit : weights.of_section(s)) unit->flat();      // what section s reads
//
// Not copyable. Nodes of the graph refer to what it holds, so that it stays where it is.
#pragma once
#include <memory>
#include <vector>

#include "model/adapter.h"
#include "model/parted_gradients.h"
#include "model/rollout_weights.h"
#include "model/streamed_weights.h"
#include "param/storage.h"

namespace dsengine {

struct Weights {
  std::vector<ParamStorage> sections;  // one for each of the graph's
  std::unique_ptr<ParamStorage> head;  // language: an untied head; value: [1, H]
  std::unique_ptr<Adapter> adapter;
  std::unique_ptr<RolloutWeights> rollout;       // null: generation reads the very weights
  std::unique_ptr<StreamedWeights> streamed;     // null: every section is whole
  std::unique_ptr<PartedGradients> gradients{};  // null: they lie with the weights

  // Sections, then the head, then an adapter's; those without parameters left out.
  std::vector<ParamStorage*> units();
  // Those that a section reads, those without parameters left out. Index sections.size() is the head; a tied head reads
  // section 0's.
  std::vector<ParamStorage*> of_section(size_t section);
};

}  // namespace dsengine
