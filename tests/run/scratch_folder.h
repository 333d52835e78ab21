// A folder of a test's own, removed with all it holds at the end.
//
//   ScratchFolder folder;
//   write_text(folder.path / "run.toml", text);
//   // gone when `folder` is
#pragma once
#include <stdlib.h>

#include <filesystem>
#include <string>

namespace dsengine {

struct ScratchFolder {
  ScratchFolder() {
    std::string name = (std::filesystem::temp_directory_path() / "dsengine_run_XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  std::filesystem::path path;
};

}  // namespace dsengine
