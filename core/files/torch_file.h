// pytorch_model.bin: the zip archive that torch.save writes, with shared, offset and transposed storages.
//
//   TorchFile file("pytorch_model.bin");
//   const TensorEntry* entry = file.find("lm_head.weight");
//   file.read_f32(*entry, 0, weights);     // row-major, whatever the tensor's strides are
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <vector>

#include "files/mapped_file.h"
#include "files/weight_source.h"

namespace dsengine {

class TorchFile : public WeightSource {
 public:
  explicit TorchFile(const std::filesystem::path& path);

  void read_f32(const TensorEntry& entry, uint64_t first, std::span<float> out) const override;
  // Nothing where the tensor's strides are not those of its shape.
  std::optional<std::span<const std::byte>> stored_bytes(const TensorEntry& entry) const override;

 private:
  // In elements, of the entry's dtype.
  struct View {
    std::span<const std::byte> storage;
    std::vector<int64_t> strides;
    uint64_t offset = 0;
  };
  const View& view_of(const TensorEntry& entry) const;

  MappedFile file_;
  std::vector<View> views_;  // of entries()
};

}  // namespace dsengine
