// Directories that the user names.
#pragma once
#include <filesystem>
#include <string>

namespace dsengine {

// UserError where `path` is no directory: nothing is there, or a file. `name` says whose path it is ("--model").
void check_directory(const std::filesystem::path& path, const std::string& name = "");

}  // namespace dsengine
