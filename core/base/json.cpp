#include "base/json.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>

#include "base/check.h"
#include "base/printable.h"
#include "base/regular_file.h"

namespace dsengine {

Json parse_json(std::string_view text, const std::string& where, int max_depth) {
  const auto depth_guard = [&](int depth, Json::parse_event_t, Json&) {
    DSE_CHECK_USER(depth <= max_depth, "{}: JSON nested deeper than {} levels", where, max_depth);
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), depth_guard);
  } catch (const Json::exception& e) {  // a number too large is no parse_error
    // nlohmann's text starts with "[json.exception.parse_error.101] "; what follows is for people.
    std::string_view what = e.what();
    if (const auto at = what.find("] "); at != std::string_view::npos) what.remove_prefix(at + 2);
    throw UserError(error_line("{}: not valid JSON: {}", where, what));
  }
}

Json read_json(const std::filesystem::path& path) { return parse_json(read_text(path), path.string()); }

std::string read_text(const std::filesystem::path& path) { return read_text(path, kMostTextBytes); }

void write_text(const std::filesystem::path& path, std::string_view text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(text.data(), static_cast<std::streamsize>(text.size()));
  file.close();
  DSE_CHECK_USER(file.good(), "cannot write {}: {}", path.string(), std::strerror(errno));
}

std::string nearest_name(std::string_view name, const std::vector<std::string>& known) {
  std::string best;
  size_t best_distance = std::max<size_t>(2, name.size() / 3) + 1;
  for (const auto& candidate : known) {
    std::vector<size_t> row(candidate.size() + 1);
    for (size_t j = 0; j <= candidate.size(); ++j) row[j] = j;
    for (size_t i = 1; i <= name.size(); ++i) {
      size_t diagonal = row[0];
      row[0] = i;
      for (size_t j = 1; j <= candidate.size(); ++j) {
        const size_t change = diagonal + (name[i - 1] != candidate[j - 1]);
        diagonal = row[j];
        row[j] = std::min({row[j] + 1, row[j - 1] + 1, change});
      }
    }
    if (row.back() < best_distance) best_distance = row.back(), best = candidate;
  }
  return best;
}

}  // namespace dsengine
