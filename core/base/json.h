// JSON values, and files of them read with one clear error line.
//
//   Json config = read_json(directory / "config.json");
//   write_text(path, config.dump(2) + "\n");
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace dsengine {

using Json = nlohmann::ordered_json;

// Parses `text`; `where` names it in the UserError. Nesting deeper than `max_depth`, invalid UTF-8 and
// trailing text are errors.
Json parse_json(std::string_view text, const std::string& where, int max_depth = 100);
Json read_json(const std::filesystem::path& path);

std::string read_text(const std::filesystem::path& path);
// Writes a whole file; throws UserError naming the path where it cannot.
void write_text(const std::filesystem::path& path, std::string_view text);

// The name in `known` nearest to `name` by edit distance, or "" where none is near: for "did you mean".
std::string nearest_name(std::string_view name, const std::vector<std::string>& known);

}  // namespace dsengine
