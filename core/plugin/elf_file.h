// Whether a file is a whole shared library for this machine, told from its headers alone. dlopen maps a
// truncated one and then dies of SIGBUS.
//
//   const std::string fault = elf_fault("libdse_ppo.so");  // "" or "is not an ELF file …"
//   DSE_CHECK_USER(fault.empty(), "{}: {}", path, fault);
//   boost::dll::shared_library library(path);
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace dsengine {

std::string elf_fault(const std::filesystem::path& path);

// The texts of the ELF notes of the owner "dsengine" and type 1 (sdk/include/dsengine/plugin.hpp: ItemNote) in a file
// without such a fault. None where there are none, or where they are not as they should be.
std::vector<std::string> item_notes(const std::filesystem::path& path);

}  // namespace dsengine
