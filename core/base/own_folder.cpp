#include "base/own_folder.h"

#include <dlfcn.h>

#include <string_view>

namespace dsengine {

namespace {

namespace fs = std::filesystem;

struct OwnFile {
  fs::path path;
  bool library;
};

OwnFile own_file() {
  Dl_info info{};
  std::error_code error;
  const bool found = dladdr(reinterpret_cast<const void*>(&own_file), &info) != 0 && info.dli_fname;
  // A program's own name is what it was started by, so that one is asked of the kernel.
  const bool library = found && std::string_view(info.dli_fname).find(".so") != std::string_view::npos;
  return {library ? fs::canonical(info.dli_fname, error) : fs::read_symlink("/proc/self/exe", error), library};
}

}  // namespace

fs::path plugins_beside_code() {
  const auto [file, library] = own_file();
  const fs::path folder = file.parent_path();
  return (library ? folder : folder.parent_path() / "lib") / "dsengine";
}

fs::path shared_files() {
  const fs::path prefix = own_file().path.parent_path().parent_path();  // of bin and lib; one deeper, of lib/<triplet>
  for (const auto& above : {prefix, prefix.parent_path()})
    if (std::error_code error; fs::is_directory(above / "share/dsengine", error)) return above / "share/dsengine";
  return prefix / "share/dsengine";
}

}  // namespace dsengine
