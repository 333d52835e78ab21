// How much memory this process may come to have: the machine's, or what its control groups grant it, whichever is less.
//
//   if (bytes > available_memory()) …
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>

namespace dsengine {

int64_t available_memory();  // bytes
int64_t resident_memory();   // bytes that the process has now
int64_t memory_left();       // of the first without the second; at least 1

// As processors_of_groups (base/processors.h). Nothing where no group has a limit.
std::optional<int64_t> memory_of_groups(std::string_view own_groups, const std::filesystem::path& mounted);

}  // namespace dsengine
