#include "model/weights.h"

namespace dsengine {

std::vector<ParamStorage*> Weights::units() {
  std::vector<ParamStorage*> result;
  for (auto& unit : sections)
    if (!unit.blocks().empty()) result.push_back(&unit);
  if (head) result.push_back(head.get());
  if (adapter)
    for (auto* unit : adapter->units()) result.push_back(unit);
  return result;
}

std::vector<ParamStorage*> Weights::of_section(size_t section) {
  if (section == sections.size()) return {head ? head.get() : &sections[0]};
  std::vector<ParamStorage*> result;
  if (!sections[section].blocks().empty()) result.push_back(&sections[section]);
  if (ParamStorage* pairs = adapter ? adapter->unit_of(section) : nullptr) result.push_back(pairs);
  return result;
}

}  // namespace dsengine
