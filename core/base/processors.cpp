#include "base/processors.h"

#include <sched.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace dsengine {
namespace {

namespace fs = std::filesystem;
using Processors = std::optional<int64_t>;

std::string text_of(const fs::path& file) {  // "": it cannot be read
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::optional<int64_t> number(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  int64_t value = 0;
  const auto [stop, error] = std::from_chars(text.begin(), text.end(), value);
  if (error != std::errc() || stop != text.end()) return {};
  return value;
}

Processors least(Processors a, Processors b) { return a && b ? std::min(*a, *b) : a ? a : b; }

// f(folder) for a group's folder below `mounted` and those above it. A container that sees its own group as the root
// is told its path outside, which is not there: then the root alone counts.
template <class F>
Processors least_upwards(const fs::path& mounted, std::string_view group, const F& f) {
  Processors result = f(mounted);
  fs::path folder = mounted;
  for (const auto& part : fs::path(group).relative_path()) result = least(result, f(folder /= part));
  return result;
}

int64_t processors_allowed() {
  for (size_t most = 1024; most <= 1 << 20; most *= 4) {  // the kernel refuses a set with less room than it has
    std::vector<cpu_set_t> set(most / (8 * sizeof(cpu_set_t)));
    const size_t bytes = set.size() * sizeof(cpu_set_t);
    if (sched_getaffinity(0, bytes, set.data()) == 0) return CPU_COUNT_S(bytes, set.data());
  }
  return 1;
}

}  // namespace

Processors processors_of_quota(std::string_view quota_us, std::string_view period_us) {
  const auto quota = number(quota_us), period = number(period_us);
  if (!quota || !period || *quota <= 0 || *period <= 0) return {};
  return (*quota - 1) / *period + 1;
}

Processors processors_of_quota(std::string_view cpu_max) {
  const size_t gap = cpu_max.find(' ');
  if (gap == cpu_max.npos) return {};
  return processors_of_quota(cpu_max.substr(0, gap), cpu_max.substr(gap + 1));
}

// Lines "0::/group" of version 2, "4:cpu,cpuacct:/group" of version 1, which is mounted by its controllers' names.
Processors processors_of_groups(std::string_view own_groups, const fs::path& mounted) {
  Processors result;
  while (!own_groups.empty()) {
    const std::string_view line = own_groups.substr(0, own_groups.find('\n'));
    own_groups.remove_prefix(std::min(own_groups.size(), line.size() + 1));
    const size_t name = line.find(':'), path = name == line.npos ? name : line.find(':', name + 1);
    if (path == line.npos) continue;
    const std::string controllers(line.substr(name + 1, path - name - 1));
    const std::string_view group = line.substr(path + 1);
    if (controllers.empty()) {
      const auto quota = [](const fs::path& folder) { return processors_of_quota(text_of(folder / "cpu.max")); };
      result = least(result, least_upwards(mounted, group, quota));
      result = least(result, least_upwards(mounted / "unified", group, quota));
    } else if (("," + controllers + ",").find(",cpu,") != std::string::npos) {
      result = least(result, least_upwards(mounted / controllers, group, [](const fs::path& folder) {
                       return processors_of_quota(text_of(folder / "cpu.cfs_quota_us"),
                                                  text_of(folder / "cpu.cfs_period_us"));
                     }));
    }
  }
  return result;
}

int64_t available_processors() {
  const int64_t allowed = std::max<int64_t>(1, processors_allowed());
  return std::min(allowed, processors_of_groups(text_of("/proc/self/cgroup"), "/sys/fs/cgroup").value_or(allowed));
}

}  // namespace dsengine
