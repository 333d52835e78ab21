#include "base/processors.h"

#include <sched.h>

#include <algorithm>
#include <vector>

#include "base/control_groups.h"

namespace dsengine {
namespace {

using Processors = std::optional<int64_t>;

}  // namespace

std::vector<int> allowed_processors() {
  for (size_t most = 1024; most <= 1 << 20; most *= 4) {  // the kernel refuses a set with less room than it has
    std::vector<cpu_set_t> set(most / (8 * sizeof(cpu_set_t)));
    const size_t bytes = set.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, set.data()) != 0) continue;
    std::vector<int> numbers;
    for (size_t i = 0; i < most; ++i)
      if (CPU_ISSET_S(i, bytes, set.data())) numbers.push_back(int(i));
    return numbers;
  }
  return {};
}

Processors processors_of_quota(std::string_view quota_us, std::string_view period_us) {
  const auto quota = group_number(quota_us), period = group_number(period_us);
  if (!quota || !period || *quota <= 0 || *period <= 0) return {};
  return (*quota - 1) / *period + 1;
}

Processors processors_of_quota(std::string_view cpu_max) {
  const size_t gap = cpu_max.find(' ');
  if (gap == cpu_max.npos) return {};
  return processors_of_quota(cpu_max.substr(0, gap), cpu_max.substr(gap + 1));
}

Processors processors_of_groups(std::string_view own_groups, const std::filesystem::path& mounted) {
  return least_of_groups(
      own_groups, mounted, "cpu",
      [](const auto& folder) { return processors_of_quota(group_text(folder / "cpu.max")); },
      [](const auto& folder) {
        return processors_of_quota(group_text(folder / "cpu.cfs_quota_us"), group_text(folder / "cpu.cfs_period_us"));
      });
}

int64_t available_processors() {
  const int64_t allowed = std::max<int64_t>(1, int64_t(allowed_processors().size()));
  return std::min(allowed, processors_of_groups(own_control_groups(), kControlGroups).value_or(allowed));
}

}  // namespace dsengine
