// Whether a file is a whole shared library for this machine, told from its headers alone. dlopen maps a
// truncated one and then dies of SIGBUS.
//
//   const std::string fault = elf_fault("libdse_ppo.so");  // "" or "is not an ELF file …"
//   DSE_CHECK_USER(fault.empty(), "{}: {}", path, fault);
//   boost::dll::shared_library library(path);
#pragma once
#include <filesystem>
#include <string>

namespace dsengine {

std::string elf_fault(const std::filesystem::path& path);

}  // namespace dsengine
