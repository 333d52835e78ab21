// Text from files and plugins made fit for one line of a terminal.
//
//   printable_line("last read: '\xff\n'")      // "last read: '? '"
//
// Line ends become spaces; other control characters, and bytes that are not UTF-8, become '?'.
#pragma once
#include <cstdint>
#include <string>
#include <string_view>

namespace dsengine {

inline std::string printable_line(std::string_view text) {
  // Length of the UTF-8 sequence at i; 0 where there is none (the forms of Unicode's table 3-7, less its finer
  // points: overlong and surrogate forms of three bytes pass).
  const auto length_at = [&](size_t i) -> size_t {
    const auto byte = [&](size_t k) { return k < text.size() ? uint8_t(text[k]) : uint8_t{0}; };
    const uint8_t b = byte(i);
    const size_t n = b < 0x80                ? 1
                     : b >= 0xC2 && b < 0xE0 ? 2
                     : b >= 0xE0 && b < 0xF0 ? 3
                     : b >= 0xF0 && b < 0xF5 ? 4
                                             : 0;
    for (size_t k = 1; k < n; ++k)
      if ((byte(i + k) & 0xC0) != 0x80) return 0;
    return n;
  };
  std::string line;
  for (size_t i = 0; i < text.size();) {
    const char c = text[i];
    const size_t n = length_at(i);
    if (c == '\n' || c == '\r' || c == '\t')
      line += ' ';
    else if (n == 0 || uint8_t(c) < 0x20 || c == 0x7F)
      line += '?';
    else
      line += text.substr(i, n);
    i += n > 0 ? n : 1;
  }
  return line;
}

}  // namespace dsengine
