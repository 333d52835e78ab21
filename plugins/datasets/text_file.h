// What the adapters of text files share: a file's whole text, plain or gzip, and whether it is UTF-8.
//
//   const std::string text = read_text_file("a.txt.gz");       // throws, naming the file
//   if (const auto bad = invalid_text(text)) …                 // offset of the first byte that is no text
#pragma once
#include <zlib.h>
#include <dsengine/plugin.hpp>

#include <memory>
#include <optional>
#include <string>
#include <string_view>

namespace {

inline std::string read_text_file(const std::string& path) {
  std::unique_ptr<gzFile_s, int (*)(gzFile)> file(gzopen(path.c_str(), "rb"), gzclose);
  if (!file) throw dse::Failure(path + ": cannot be opened", DSE_BAD_DATA);
  std::string text;
  char buffer[1 << 16];
  int count = 0;
  while ((count = gzread(file.get(), buffer, sizeof buffer)) > 0) text.append(buffer, size_t(count));
  int code = 0;
  const char* what = gzerror(file.get(), &code);
  if (count < 0 || code != Z_OK) throw dse::Failure(path + ": cannot be read: " + what, DSE_BAD_DATA);
  return text;
}

// Bytes of the UTF-8 character at `at`; 0 where there is none: overlong forms, surrogates and what lies beyond
// U+10FFFF are none (The Unicode Standard, table 3-7).
inline size_t character_size(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return at + i < text.size() ? uint8_t(text[at + i]) : uint8_t{0}; };
  const auto in = [&](size_t i, uint8_t first, uint8_t last) { return byte(i) >= first && byte(i) <= last; };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return in(1, 0x80, 0xBF) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF)
    return in(1, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF) && in(2, 0x80, 0xBF) ? 3 : 0;
  if (lead >= 0xF0 && lead <= 0xF4)
    return in(1, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF) && in(2, 0x80, 0xBF) && in(3, 0x80, 0xBF) ? 4
                                                                                                                   : 0;
  return 0;
}

// The offset of the first zero byte or byte that is not UTF-8.
inline std::optional<size_t> invalid_text(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const size_t size = character_size(text, at);
    if (size == 0 || text[at] == '\0') return at;
    at += size;
  }
  return std::nullopt;
}

}  // namespace
