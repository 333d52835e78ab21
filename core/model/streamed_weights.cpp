#include "model/streamed_weights.h"

#include <optional>

#include "base/check.h"

namespace dsengine {

StreamedWeights::StreamedWeights(const Kernels& kernels, StreamSettings settings, at::ScalarType dtype)
    : device_(kernels.device()), settings_(settings), spare_(device_, MemoryTag::weights) {
  if (settings.format == FrozenFormat::nf4) codes_ = std::make_shared<ops::RowCodes>(kernels, ops::RowCode::nf4, dtype);
}

std::shared_ptr<KeptMatrices> StreamedWeights::new_home(const ParamLayout& layout) const {
  const MemoryScope scope(MemoryTag::weights);
  std::optional<OffloadScope> elsewhere;
  if (settings_.offload) elsewhere.emplace(device_, MemoryTag::weights);
  return std::make_shared<KeptMatrices>(layout, settings_.offload ? offload_memory(device_) : device_, codes_);
}

void StreamedWeights::add(size_t section, ParamStorage& unit, const StreamedWeights* like) {
  DSE_CHECK(!unit.whole(), "unit {}", unit.name());
  std::shared_ptr<KeptMatrices> kept;
  if (!unit.streamed()) kept = like ? like->units_.at(section).kept : new_home(unit.layout());
  units_.emplace(section, Unit{&unit, std::move(kept)});
}

void StreamedWeights::hold(size_t section) {
  const auto found = units_.find(section);
  if (found == units_.end()) return;
  Unit& unit = found->second;
  if (unit.holds == 0) {
    at::Tensor values = spare_.take(unit.storage->brought_numel(), unit.storage->dtype());
    const int64_t moved = !unit.kept ? int64_t(values.nbytes()) : settings_.offload ? unit.kept->bytes() : 0;
    traffic_.count(moved, [&] { unit.kept ? unit.kept->read(values) : void(values.copy_(unit.storage->flat())); });
    if (settings_.format != FrozenFormat::fp32) traffic_.unpacked += int64_t(values.nbytes());
    unit.storage->bring(std::move(values));
  }
  ++unit.holds;
}

void StreamedWeights::release(size_t section) noexcept {
  const auto found = units_.find(section);
  if (found == units_.end() || found->second.holds == 0 || --found->second.holds > 0) return;
  spare_.give(found->second.storage->let_go());
}

void StreamedWeights::release_all() noexcept {
  for (auto& [_, unit] : units_)
    if (std::exchange(unit.holds, 0) > 0) spare_.give(unit.storage->let_go());
}

void StreamedWeights::keep(size_t section) {
  const auto found = units_.find(section);
  if (found == units_.end()) return;
  Unit& unit = found->second;
  DSE_CHECK(unit.holds > 0, "unit {} is away", unit.storage->name());
  if (!unit.kept) {
    // A home of another type is what was written (ParamStorage::kept_part).
    if (unit.storage->flat().scalar_type() == unit.storage->dtype())
      at::Tensor(unit.storage->flat()).copy_(unit.storage->brought());
    return;
  }
  if (unit.kept.use_count() > 1) unit.kept = new_home(unit.storage->layout());
  unit.kept->write(unit.storage->brought());
}

}  // namespace dsengine
