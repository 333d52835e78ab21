// A file of named tensors, whatever its format: SafetensorsFile and TorchFile are two.
//
//   const TensorEntry* entry = source.find("model.norm.weight");
//   std::vector<float> weights(entry->elements());
//   source.read_f32(*entry, 0, weights);
#pragma once
#include <cstddef>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/tensor_entry.h"

namespace dsengine {

class WeightSource {
 public:
  virtual ~WeightSource() = default;

  const std::vector<TensorEntry>& entries() const { return entries_; }
  // Null where there is none of that name. Points into entries().
  const TensorEntry* find(std::string_view name) const;
  // Elements [first, first + out.size()) of the tensor in row-major order, as float. `entry` is one of
  // entries(), of a dtype for which is_float holds. Any thread.
  virtual void read_f32(const TensorEntry& entry, uint64_t first, std::span<float> out) const = 0;
  // The elements as the file holds them: row-major, little-endian, not aligned; valid as long as this object.
  // Nothing where they lie in another order. `entry` is one of entries(), of any dtype. Any thread.
  virtual std::optional<std::span<const std::byte>> stored_bytes(const TensorEntry& entry) const;

 protected:
  // Refuses two entries of one name; `where` names the file.
  void set_entries(std::vector<TensorEntry> entries, const std::string& where);

 private:
  std::vector<TensorEntry> entries_;
  std::map<std::string, size_t, std::less<>> index_;
};

// A tensor among those of several files.
struct TensorPlace {
  const WeightSource* source;
  const TensorEntry* entry;
};
using TensorPlaces = std::map<std::string, TensorPlace, std::less<>>;

}  // namespace dsengine
