// Directories that the user names, and those that the program makes.
#pragma once
#include <filesystem>
#include <string>

namespace dsengine {

// "--model models/x": a path in an error's line, and whose it is, where that is said.
std::string named_path(const std::filesystem::path& path, const std::string& name);

// UserError where `path` is no directory: nothing is there, or a file; ReadError where that cannot be known. `name`
// says whose path it is ("--model").
void check_directory(const std::filesystem::path& path, const std::string& name = "");

// Makes a directory, and those that it is to lie in, where they are not there. UserError where one cannot be made.
void make_directories(const std::filesystem::path& path, const std::string& name = "");

}  // namespace dsengine
