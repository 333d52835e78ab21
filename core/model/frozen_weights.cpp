#include "model/frozen_weights.h"

#include <optional>

#include "base/check.h"

namespace dsengine {

std::shared_ptr<KeptMatrices> FrozenWeights::new_home(const ParamLayout& layout) const {
  const MemoryScope scope(MemoryTag::weights);
  std::optional<OffloadScope> elsewhere;
  if (settings_.offload) elsewhere.emplace(device_, MemoryTag::weights);
  return std::make_shared<KeptMatrices>(layout, settings_.format, device_);
}

void FrozenWeights::add(size_t section, ParamStorage& unit) {
  DSE_CHECK(!unit.whole() && unit.dtype() == at::kFloat, "unit {}", unit.name());
  units_.emplace(section, Unit{&unit, new_home(unit.layout())});
}

void FrozenWeights::share(size_t section, ParamStorage& unit, const FrozenWeights& other) {
  units_.emplace(section, Unit{&unit, other.units_.at(section).kept});
}

at::Tensor FrozenWeights::buffer(int64_t numel) {
  if (spare_.defined() && spare_.numel() == numel) return std::exchange(spare_, at::Tensor());
  spare_ = at::Tensor();  // before there is another
  const MemoryScope scope(MemoryTag::weights);
  return device_.empty({numel}, at::kFloat);
}

void FrozenWeights::hold(size_t section) {
  const auto found = units_.find(section);
  if (found == units_.end()) return;
  Unit& unit = found->second;
  if (unit.holds == 0) {
    at::Tensor matrices = buffer(unit.storage->layout().decayed_numel());
    traffic_.count(int64_t(matrices.nbytes()), [&] { unit.kept->read(matrices); });
    unit.storage->bring(std::move(matrices));
  }
  ++unit.holds;
}

void FrozenWeights::release(size_t section) noexcept {
  const auto found = units_.find(section);
  if (found == units_.end() || --found->second.holds > 0) return;
  spare_ = found->second.storage->let_go();
}

void FrozenWeights::keep(size_t section) {
  const auto found = units_.find(section);
  if (found == units_.end()) return;
  Unit& unit = found->second;
  DSE_CHECK(unit.holds > 0, "unit {} is away", unit.storage->name());
  if (unit.kept.use_count() > 1) unit.kept = new_home(unit.storage->layout());
  unit.kept->write(unit.storage->matrices());
}

}  // namespace dsengine
