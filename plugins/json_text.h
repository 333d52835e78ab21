// JSON as it is written. Parsed into values and printed again, a number of more digits than a double or 64 bits hold
// would be another one.
//
//   if (nlohmann::json::accept(text))
//     for (const auto& [key, value] : json_members(text)) …        // value: its text
//
// The texts given are valid JSON.
#pragma once
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace {

using JsonMembers = std::map<std::string, std::string_view>;  // of a key given twice the last, as a parser has it

// The byte behind the string that begins at `at`.
inline size_t end_of_string(std::string_view text, size_t at) {
  for (++at; text[at] != '"'; ++at)
    if (text[at] == '\\') ++at;
  return at + 1;
}

// The texts of an object's values; none of what is no object.
inline JsonMembers json_members(std::string_view text) {
  constexpr const char* space = " \t\r\n";
  JsonMembers members;
  size_t at = text.find_first_not_of(space);
  if (at == text.npos || text[at] != '{') return members;
  for (;;) {
    at = text.find_first_of("\"}", at + 1);  // behind '{' or ','
    if (text[at] == '}') return members;
    const size_t key_end = end_of_string(text, at);
    const auto key = nlohmann::json::parse(text.substr(at, key_end - at)).get<std::string>();
    const size_t begin = text.find_first_not_of(space, text.find(':', key_end) + 1);
    int depth = 0;
    for (at = begin; depth > 0 || (text[at] != ',' && text[at] != '}');) {
      if (text[at] == '"') {
        at = end_of_string(text, at);
        continue;
      }
      depth += text[at] == '{' || text[at] == '[', depth -= text[at] == '}' || text[at] == ']';
      ++at;
    }
    const size_t end = text.find_last_not_of(space, at - 1) + 1;
    members[key] = text.substr(begin, end - begin);
    if (text[at] == '}') return members;
  }
}

// Without the white space between its parts.
inline std::string compact_json(std::string_view text) {
  std::string compact;
  for (size_t at = 0; at < text.size();) {
    const size_t end = text[at] == '"' ? end_of_string(text, at) : at + 1;
    if (text[at] != ' ' && text[at] != '\t' && text[at] != '\r' && text[at] != '\n')
      compact += text.substr(at, end - at);
    at = end;
  }
  return compact;
}

}  // namespace
