#include "base/own_folder.h"

#include <dlfcn.h>

#include <string_view>

namespace dsengine {

std::filesystem::path own_prefix() {
  namespace fs = std::filesystem;
  Dl_info info{};
  std::error_code error;
  const bool found = dladdr(reinterpret_cast<const void*>(&own_prefix), &info) != 0 && info.dli_fname;
  // A program's own name is what it was started by, so that one is asked of the kernel.
  const bool library = found && std::string_view(info.dli_fname).find(".so") != std::string_view::npos;
  const fs::path file = library ? fs::canonical(info.dli_fname, error) : fs::read_symlink("/proc/self/exe", error);
  return file.parent_path().parent_path();
}

}  // namespace dsengine
