// What lies in a directory, by name.
//
//   for (const auto& entry : entries_of("runs/hh/sft/checkpoints")) std::cout << entry.path() << "\n";
#pragma once
#include <filesystem>
#include <vector>

namespace dsengine {

// Sorted by name; UserError naming the directory where it cannot be read to its end.
std::vector<std::filesystem::directory_entry> entries_of(const std::filesystem::path& directory);

}  // namespace dsengine
