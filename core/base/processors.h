// How many processors this process may keep busy: those it may run on, and the share of time that its control groups
// (Linux, versions 1 and 2) grant it.
//
//   const ThreadTeam team(int(available_processors()));
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string_view>
#include <vector>

namespace dsengine {

// Those that it may run on, by their numbers; none where the system does not say.
std::vector<int> allowed_processors();

// At least 1. A share of 1.5 processors counts as 2: a thread more waits less than half a processor more idles.
int64_t available_processors();

// The whole processors, rounded up, of a quota. Nothing where there is none, or what stands there is no quota.
std::optional<int64_t> processors_of_quota(std::string_view cpu_max);  // version 2: "150000 100000", "max 100000"
std::optional<int64_t> processors_of_quota(std::string_view quota_us, std::string_view period_us);  // version 1: "-1"

// The least quota of the groups that `own_groups` (/proc/self/cgroup's text) names and of those above them, below the
// folder where they are mounted (/sys/fs/cgroup).
std::optional<int64_t> processors_of_groups(std::string_view own_groups, const std::filesystem::path& mounted);

}  // namespace dsengine
