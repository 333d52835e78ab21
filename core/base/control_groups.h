// What the control groups of this process (Linux, versions 1 and 2) grant it: the least of its own group's and of those
// above it.
//
//   least_of_groups(own_control_groups(), kControlGroups, "memory", of_version_2, of_version_1);
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <string_view>

namespace dsengine {

inline constexpr const char* kControlGroups = "/sys/fs/cgroup";  // where they are mounted
std::string own_control_groups();                                // the text of /proc/self/cgroup

// A file's text as it stands; "": it cannot be read.
std::string group_text(const std::filesystem::path& file);
// A whole number, with blanks behind it at most.
std::optional<int64_t> group_number(std::string_view text);

// of_version_2, of_version_1: what a group's folder says, or nothing. controller: as version 1 mounts it.
using GroupGrant = std::function<std::optional<int64_t>(const std::filesystem::path& folder)>;
std::optional<int64_t> least_of_groups(std::string_view own_groups, const std::filesystem::path& mounted,
                                       const std::string& controller, const GroupGrant& of_version_2,
                                       const GroupGrant& of_version_1);

}  // namespace dsengine
