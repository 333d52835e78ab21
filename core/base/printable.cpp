#include "base/printable.h"

#include <cstdint>
#include <vector>

namespace dsengine {
namespace {

// Length of the UTF-8 sequence at i; 0 where there is none (The Unicode Standard, table 3-7).
size_t sequence_at(std::string_view text, size_t i) {
  const auto byte = [&](size_t k) { return i + k < text.size() ? uint8_t(text[i + k]) : uint8_t{0}; };
  const auto in = [&](size_t k, uint8_t first, uint8_t last) { return byte(k) >= first && byte(k) <= last; };
  const auto tail = [&](size_t k) { return in(k, 0x80, 0xBF); };
  const uint8_t lead = byte(0);
  if (lead < 0x80) return 1;
  if (lead >= 0xC2 && lead <= 0xDF) return tail(1) ? 2 : 0;
  if (lead >= 0xE0 && lead <= 0xEF)
    return in(1, lead == 0xE0 ? 0xA0 : 0x80, lead == 0xED ? 0x9F : 0xBF) && tail(2) ? 3 : 0;
  if (lead >= 0xF0 && lead <= 0xF4)
    return in(1, lead == 0xF0 ? 0x90 : 0x80, lead == 0xF4 ? 0x8F : 0xBF) && tail(2) && tail(3) ? 4 : 0;
  return 0;
}

bool is_control(std::string_view c) {
  const auto first = uint8_t(c[0]);
  return c.size() == 1 ? first < 0x20 || first == 0x7F : c.size() == 2 && first == 0xC2 && uint8_t(c[1]) < 0xA0;
}

std::string printable(std::string_view text, bool keep_lines) {
  std::string result;
  for (size_t i = 0; i < text.size();) {
    const size_t n = sequence_at(text, i);
    const std::string_view c = text.substr(i, n == 0 ? 1 : n);
    if (c == "\n" || c == "\r" || c == "\t")
      result += keep_lines && c != "\r" ? c : " ";
    else
      result += n == 0 || is_control(c) ? "?" : c;
    i += c.size();
  }
  return result;
}

}  // namespace

std::string printable_line(std::string_view text) { return printable(text, false); }
std::string printable_text(std::string_view text) { return printable(text, true); }

std::string shown(std::string_view value, size_t most) {
  const std::string line = printable_line(value);
  if (line.size() <= most) return line;
  std::vector<size_t> begins;  // of the characters
  for (size_t i = 0; i < line.size(); ++i)
    if ((uint8_t(line[i]) & 0xC0) != 0x80) begins.push_back(i);
  if (begins.size() <= most) return line;
  const size_t tail = most / 4, head = most - 1 - tail;
  return line.substr(0, begins[head]) + "…" + line.substr(begins[begins.size() - tail]);
}

}  // namespace dsengine
