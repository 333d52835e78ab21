// Zip archives whose members are stored, not compressed, as torch.save writes them (zip64 included):
// every member is a view into the archive's bytes.
//
//   MappedFile file("pytorch_model.bin");
//   auto members = read_stored_zip(file.bytes(), "pytorch_model.bin");
//   std::span<const std::byte> pickle = members.at("archive/data.pkl");
#pragma once
#include <cstddef>
#include <map>
#include <span>
#include <string>

namespace dsengine {

using ZipMembers = std::map<std::string, std::span<const std::byte>, std::less<>>;

bool is_zip(std::span<const std::byte> bytes);
// UserError naming `where` for anything that is not such an archive.
ZipMembers read_stored_zip(std::span<const std::byte> bytes, const std::string& where);

}  // namespace dsengine
