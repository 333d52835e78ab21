// Safetensors files: [8 bytes: header length][JSON header, padded with spaces to 8 bytes][tensor bytes].
// A file is checked whole, by the rules of the format's reference implementation, before a byte of a
// tensor is given out; every refusal is one UserError "path: what".
//
//   SafetensorsFile file("model.safetensors");
//   std::span<const std::byte> bytes = file.bytes(*file.find("model.norm.weight"));
//   SafetensorsWriter out("copy.safetensors", {{"w", Dtype::F32, {2, 3}}}); out.write("w", bytes);
//   out.close();
#pragma once
#include <cstddef>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "files/mapped_file.h"
#include "files/output_file.h"
#include "files/tensor_entry.h"
#include "files/weight_source.h"

namespace dsengine {

struct SafetensorsHeader {
  std::vector<TensorEntry> entries{};  // in the order of their bytes
  std::map<std::string, std::string> metadata{};
  uint64_t data_begin = 0;  // where in the file the entries' offsets count from
};

// `file_prefix` is the file's beginning, header included; `file_size` its whole length; `where` its name.
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file_prefix, uint64_t file_size,
                                           const std::string& where);

class SafetensorsFile : public WeightSource {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  // The tensor's elements, row-major, little-endian; not aligned. Valid as long as this object.
  std::span<const std::byte> bytes(const TensorEntry& entry) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  void read_f32(const TensorEntry& entry, uint64_t first, std::span<float> out) const override;
  std::optional<std::span<const std::byte>> stored_bytes(const TensorEntry& entry) const override {
    return bytes(entry);
  }

 private:
  MappedFile file_;
  std::map<std::string, std::string> metadata_;
  uint64_t data_begin_ = 0;
};

// Writes the tensors in their declared order as they are handed over, without holding them.
class SafetensorsWriter {
 public:
  // transformers asks for this "format" when it loads.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorDeclaration> tensors,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

  // `name` is the tensor whose turn it is. Its bytes may come in several pieces, by as many calls.
  void write(std::string_view name, std::span<const std::byte> bytes);
  // All that was declared must have come; the file is on the disk afterwards. Destroyed without it, the
  // file is removed.
  void close();

 private:
  void skip_complete();

  OutputFile file_;
  std::vector<TensorDeclaration> tensors_;
  std::vector<uint64_t> sizes_;  // bytes of each tensor
  size_t turn_ = 0;              // the tensor being written
  uint64_t written_ = 0;         // bytes of it
};

}  // namespace dsengine
