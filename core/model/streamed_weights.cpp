#include "model/streamed_weights.h"

#include "base/check.h"

namespace dsengine {

StreamedWeights::StreamedWeights(const Kernels& kernels, StreamSettings settings, at::ScalarType dtype)
    : device_(kernels.device()),
      settings_(settings),
      dtype_(dtype),
      spare_(device_, MemoryTag::weights),
      looks_ahead_(settings.offload && (device_.is_apart() || kernels.on_card())),
      lane_(device_) {
  if (settings.format == FrozenFormat::nf4) codes_ = std::make_shared<ops::RowCodes>(kernels, ops::RowCode::nf4, dtype);
}

std::shared_ptr<KeptMatrices> StreamedWeights::new_home(const ParamLayout& layout) const {
  const MemoryScope scope(MemoryTag::weights);
  std::optional<OffloadScope> elsewhere;
  if (settings_.offload) elsewhere.emplace(device_, MemoryTag::weights);
  return std::make_shared<KeptMatrices>(layout, settings_.offload ? offload_memory(device_) : device_, dtype_, codes_);
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
  if (unit.holds > 0) {
    ++unit.holds;
    return;
  }
  at::Tensor values = take_ahead(section);
  if (!values.defined()) {
    values = spare_.take(unit.storage->brought_numel(), unit.storage->dtype());
    fetch(unit, values, false);
  }
  unit.storage->bring(std::move(values));
  unit.holds = 1;
  if (looks_ahead_) bring_ahead(section);
}

void StreamedWeights::fetch(const Unit& unit, const at::Tensor& values, bool beside) {
  // A home of another type crosses as it is on the lane, and is rounded there: the host would be waited for.
  const bool rounds = beside && !unit.kept && unit.storage->flat().scalar_type() != values.scalar_type();
  const auto read = [&] {
    if (unit.kept) return unit.kept->read(values);
    at::Tensor staged = values;
    if (rounds) {
      const MemoryScope scope(MemoryTag::weights);
      staged = device_.empty({values.numel()}, unit.storage->flat().scalar_type());
    }
    staged.copy_(unit.storage->flat(), beside);
    if (rounds) at::Tensor(values).copy_(staged);
  };
  const int64_t moved = unit.kept ? settings_.offload ? unit.kept->bytes() : 0
                        : rounds  ? int64_t(unit.storage->flat().nbytes())
                                  : int64_t(values.nbytes());
  traffic_.count(moved, [&] { beside ? lane_.begin(read) : read(); });
  if (settings_.format != FrozenFormat::fp32) traffic_.unpacked += int64_t(values.nbytes());
}

at::Tensor StreamedWeights::take_ahead(size_t section) {
  if (!ahead_) return {};
  if (ahead_->section != section) {
    leave_ahead();
    return {};
  }
  lane_.join();
  at::Tensor values = std::move(ahead_->values);
  ahead_.reset();
  return values;
}

void StreamedWeights::bring_ahead(size_t section) {
  const bool up = !last_ || section > *last_;
  last_ = section;
  const auto next = units_.find(up ? section + 1 : section - 1);
  if (next == units_.end() || next->second.holds > 0) return;
  const Unit& unit = next->second;
  ahead_.emplace(Ahead{next->first, spare_.take(unit.storage->brought_numel(), unit.storage->dtype())});
  try {
    fetch(unit, ahead_->values, true);
  } catch (...) {
    leave_ahead();
    throw;
  }
}

void StreamedWeights::leave_ahead() noexcept {
  if (!ahead_) return;
  lane_.join();
  spare_.give(std::move(ahead_->values));
  ahead_.reset();
}

void StreamedWeights::let_go_buffer() noexcept {
  leave_ahead();
  last_.reset();
  spare_.let_go();
}

void StreamedWeights::release(size_t section) noexcept {
  const auto found = units_.find(section);
  if (found == units_.end() || found->second.holds == 0 || --found->second.holds > 0) return;
  spare_.give(found->second.storage->let_go());
}

void StreamedWeights::release_all() noexcept {
  leave_ahead();
  last_.reset();
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
