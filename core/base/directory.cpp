#include "base/directory.h"

#include "base/check.h"

namespace dsengine {

void check_directory(const std::filesystem::path& path, const std::string& name) {
  std::error_code error;
  const auto status = std::filesystem::status(path, error);
  if (std::filesystem::is_directory(status)) return;
  const std::string reason = std::filesystem::exists(status) ? "is a file: give the directory it is in"
                             : status.type() == std::filesystem::file_type::not_found
                                 ? "there is no such directory"
                                 : "cannot be looked at: " + error.message();
  user_error(fmt::format("{}{}{}: {}", name, name.empty() ? "" : " ", path.string(), reason));
}

}  // namespace dsengine
