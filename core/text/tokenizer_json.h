// tokenizer.json's values, and the two errors every part of it can meet. A sorted map, not base/json.h's
// ordered list: that one searches its whole list for each of a vocabulary's 128,000 keys.
//
//   TokenizerJson file = read_tokenizer_json(directory / "tokenizer.json");
//   std::string type = type_of(file["normalizer"]);
//   unsupported(where, "normalizer", type, "NFC, NFD");
#pragma once
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "base/check.h"
#include "base/json.h"

namespace dsengine {

using TokenizerJson = nlohmann::json;

TokenizerJson read_tokenizer_json(const std::filesystem::path& path);

inline std::string type_of(const TokenizerJson& part) { return part.at("type").get<std::string>(); }

// The value of `key`, or `fallback` where it is absent or null.
template <class T>
T value_or(const TokenizerJson& json, const char* key, T fallback) {
  const auto found = json.find(key);
  return found == json.end() || found->is_null() ? fallback : found->get<T>();
}

[[noreturn]] inline void unsupported(const std::string& where, const char* part, const std::string& type,
                                     const char* supported) {
  user_error(fmt::format("{}: {} of type {} is not supported (supported: {})", where, part, type, supported));
}

}  // namespace dsengine
