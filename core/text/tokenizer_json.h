// tokenizer.json's values, and the errors that every part of it can meet. A sorted map, not base/json.h's
// ordered list: that one searches its whole list for each of a vocabulary's 128,000 keys.
//
//   TokenizerJson file = read_tokenizer_json(directory / "tokenizer.json");
//   std::string type = type_of(file["normalizer"]);
//   unsupported(where, "normalizer", type, "NFC, NFD");
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

#include "base/check.h"
#include "base/json.h"
#include "base/printable.h"
#include "text/utf8.h"

namespace dsengine {

using TokenizerJson = nlohmann::json;

TokenizerJson read_tokenizer_json(const std::filesystem::path& path);
TokenizerJson parse_tokenizer_json(std::string_view text, const std::string& where);
// nlohmann's text starts with "[json.exception.parse_error.101] "; what follows is for people.
std::string_view without_code(std::string_view what);

inline std::string type_of(const TokenizerJson& part) { return part.at("type").get<std::string>(); }

// The value of `key`, or `fallback` where it is absent or null. Of another type: std::invalid_argument that names it.
template <class T>
T value_or(const TokenizerJson& json, const char* key, T fallback) {
  const auto found = json.find(key);
  if (found == json.end() || found->is_null()) return fallback;
  try {
    return found->get<T>();
  } catch (const TokenizerJson::exception&) {  // read_tokenizer_parts adds the directory
    throw std::invalid_argument(fmt::format("'{}' is {}, of the wrong type", key, shown(found->dump())));
  }
}

// An id in a file; one out of range is a damaged file's.
inline int32_t token_id(const TokenizerJson& json, const std::string& where) {
  constexpr int64_t most_tokens = 1 << 24;
  const auto id = whole_number(json, 0, most_tokens - 1);
  DSE_CHECK_USER(id, "{}: token id {} is not a whole number in 0..{}", where, json.dump(), most_tokens - 1);
  return int32_t(*id);
}

// A text that must be one character.
inline std::string one_char(const TokenizerJson& json, const char* what, const std::string& where) {
  auto text = json.get<std::string>();
  DSE_CHECK_USER(!text.empty() && char_bytes(text, 0) == text.size(), "{}: {} must be one character, not '{}'", where,
                 what, text);
  return text;
}

[[noreturn]] inline void unsupported(const std::string& where, const char* part, const std::string& type,
                                     const char* supported) {
  user_error(error_line("{}: {} of type {} is not supported (supported: {})", where, part, type, supported));
}

}  // namespace dsengine
