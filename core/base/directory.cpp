#include "base/directory.h"

#include <sys/stat.h>

#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "base/regular_file.h"

namespace dsengine {

namespace fs = std::filesystem;

std::string named_path(const fs::path& path, const std::string& name) {
  return name.empty() ? path.string() : fmt::format("{} {}", name, path.string());
}

void check_directory(const fs::path& path, const std::string& name) {
  std::error_code error;
  const auto status = fs::status(path, error);
  if (fs::is_directory(status)) return;
  if (status.type() == fs::file_type::none)
    throw ReadError(fmt::format("{}: cannot be looked at: {}", named_path(path, name), error.message()));
  user_error(fmt::format("{}: {}", named_path(path, name),
                         fs::exists(status) ? "is a file: give the directory it is in" : "there is no such directory"));
}

// Not std::filesystem::create_directories, which passes over a parent that cannot be looked at.
void make_directories(const fs::path& path, const std::string& name) {
  if (::mkdir(path.c_str(), 0777) == 0) return;
  const fs::path parent = path.parent_path();
  if (errno == ENOENT && !parent.empty() && parent != path) {
    make_directories(parent, name);
    if (::mkdir(path.c_str(), 0777) == 0) return;
  }
  // One that is there may be refused for other reasons than that, where nothing may be made beside it.
  const int error = errno;
  struct stat status {};
  const bool there = ::stat(path.c_str(), &status) == 0;
  DSE_CHECK_USER(!there || S_ISDIR(status.st_mode), "cannot make {}: it is a file", named_path(path, name));
  DSE_CHECK_USER(there, "cannot make {}: {}", named_path(path, name), std::strerror(error == EEXIST ? errno : error));
}

}  // namespace dsengine
