#include "files/weight_source.h"

#include "base/check.h"

namespace dsengine {

const TensorEntry* WeightSource::find(std::string_view name) const {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

std::optional<std::span<const std::byte>> WeightSource::stored_bytes(const TensorEntry&) const { return std::nullopt; }

void WeightSource::set_entries(std::vector<TensorEntry> entries, const std::string& where) {
  entries_ = std::move(entries);
  for (size_t i = 0; i < entries_.size(); ++i) {
    DSE_CHECK_USER(index_.emplace(entries_[i].name, i).second, "{}: two tensors are named '{}'", where,
                   entries_[i].name);
  }
}

}  // namespace dsengine
