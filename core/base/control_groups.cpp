#include "base/control_groups.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>

namespace dsengine {

namespace fs = std::filesystem;

namespace {

std::optional<int64_t> least(std::optional<int64_t> a, std::optional<int64_t> b) {
  return a && b ? std::min(*a, *b) : a ? a : b;
}

// Of a group's folder below `mounted` and those above it. A container that sees its own group as the root is told its
// path outside, which is not there: then the root alone counts.
std::optional<int64_t> least_upwards(const fs::path& mounted, std::string_view group, const GroupGrant& grant) {
  auto result = grant(mounted);
  fs::path folder = mounted;
  for (const auto& part : fs::path(group).relative_path()) result = least(result, grant(folder /= part));
  return result;
}

}  // namespace

std::string own_control_groups() { return group_text("/proc/self/cgroup"); }

std::string group_text(const fs::path& file) {
  std::ifstream in(file);
  return {std::istreambuf_iterator<char>(in), {}};
}

std::optional<int64_t> group_number(std::string_view text) {
  while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.remove_suffix(1);
  int64_t value = 0;
  const auto [stop, error] = std::from_chars(text.begin(), text.end(), value);
  if (error != std::errc() || stop != text.end()) return {};
  return value;
}

// Lines "0::/group" of version 2, "4:cpu,cpuacct:/group" of version 1, which is mounted by its controllers' names.
std::optional<int64_t> least_of_groups(std::string_view own_groups, const fs::path& mounted,
                                       const std::string& controller, const GroupGrant& of_version_2,
                                       const GroupGrant& of_version_1) {
  std::optional<int64_t> result;
  while (!own_groups.empty()) {
    const std::string_view line = own_groups.substr(0, own_groups.find('\n'));
    own_groups.remove_prefix(std::min(own_groups.size(), line.size() + 1));
    const size_t name = line.find(':'), path = name == line.npos ? name : line.find(':', name + 1);
    if (path == line.npos) continue;
    const std::string controllers(line.substr(name + 1, path - name - 1));
    const std::string_view group = line.substr(path + 1);
    if (controllers.empty()) {
      result = least(result, least_upwards(mounted, group, of_version_2));
      result = least(result, least_upwards(mounted / "unified", group, of_version_2));
    } else if (("," + controllers + ",").find("," + controller + ",") != std::string::npos) {
      result = least(result, least_upwards(mounted / controllers, group, of_version_1));
    }
  }
  return result;
}

}  // namespace dsengine
