// JSON values, and files of them read with one clear error line.
//
//   Json config = read_json(directory / "config.json");
//   write_text(path, config.dump(2) + "\n");
#pragma once
#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace dsengine {

using Json = nlohmann::ordered_json;

// Parses `text`; `where` names it in the UserError. Nesting deeper than `max_depth`, invalid UTF-8 and
// trailing text are errors.
Json parse_json(std::string_view text, const std::string& where, int max_depth = 100);
Json read_json(const std::filesystem::path& path);

// The whole number that `value` holds, where it is one in least..most: what a file says beyond them is neither
// wrapped nor converted from a real (which C++ leaves undefined).
template <class AnyJson>
std::optional<int64_t> whole_number(const AnyJson& value, int64_t least, int64_t most) {
  if (!value.is_number_integer()) return std::nullopt;
  if (value.is_number_unsigned() && value.template get<uint64_t>() > uint64_t(INT64_MAX)) return std::nullopt;
  const auto number = value.template get<int64_t>();
  return number >= least && number <= most ? std::optional(number) : std::nullopt;
}

std::string read_text(const std::filesystem::path& path);
// Writes a whole file; throws UserError naming the path where it cannot.
void write_text(const std::filesystem::path& path, std::string_view text);

// The name in `known` nearest to `name` by edit distance, or "" where none is near: for "did you mean".
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

}  // namespace dsengine
