#include "files/entries.h"

#include <algorithm>

#include "base/check.h"

namespace dsengine {

std::vector<std::filesystem::directory_entry> entries_of(const std::filesystem::path& directory) {
  std::vector<std::filesystem::directory_entry> entries;
  std::error_code error;
  std::filesystem::directory_iterator at(directory, error);
  while (!error && at != std::filesystem::directory_iterator()) {
    entries.push_back(*at);
    at.increment(error);
  }
  DSE_CHECK_USER(!error, "cannot list {}: {}", directory.string(), error.message());
  std::sort(entries.begin(), entries.end());
  return entries;
}

}  // namespace dsengine
