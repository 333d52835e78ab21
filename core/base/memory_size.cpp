#include "base/memory_size.h"

#include <unistd.h>

#include <algorithm>

#include "base/control_groups.h"

namespace dsengine {

std::optional<int64_t> memory_of_groups(std::string_view own_groups, const std::filesystem::path& mounted) {
  const auto grant = [](const char* file) {
    return [file](const std::filesystem::path& folder) { return group_number(group_text(folder / file)); };
  };
  return least_of_groups(own_groups, mounted, "memory", grant("memory.max"), grant("memory.limit_in_bytes"));
}

int64_t available_memory() {
  const int64_t machine = int64_t(sysconf(_SC_PHYS_PAGES)) * int64_t(sysconf(_SC_PAGESIZE));
  return std::min(machine, memory_of_groups(own_control_groups(), kControlGroups).value_or(machine));
}

int64_t resident_memory() {
  const std::string pages = group_text("/proc/self/statm");  // "size resident shared …"
  const size_t first = pages.find(' ');
  if (first == pages.npos) return 0;
  return group_number(pages.substr(first + 1, pages.find(' ', first + 1) - first - 1)).value_or(0) *
         int64_t(sysconf(_SC_PAGESIZE));
}

int64_t memory_left() { return std::max<int64_t>(1, available_memory() - resident_memory()); }

}  // namespace dsengine
