// A file of named tensors, whatever its format: SafetensorsFile and TorchFile are two.
//
//   const TensorEntry* entry = source.find("model.norm.weight");
//   std::vector<float> weights(entry->elements());
//   source.read_f32(*entry, 0, weights);
#pragma once
#include <cstdint>
#include <map>
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

 protected:
  // Refuses two entries of one name; `where` names the file.
  void set_entries(std::vector<TensorEntry> entries, const std::string& where);

 private:
  std::vector<TensorEntry> entries_;
  std::map<std::string, size_t, std::less<>> index_;
};

}  // namespace dsengine
