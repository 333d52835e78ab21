// UTF-8, character by character: the checks every text passes before it is tokenized, and after it is
// decoded.
//
//   if (!is_valid_utf8(text)) ...
//   for (size_t at = 0; at < text.size(); at += char_bytes(text, at)) use(char_at(text, at));
//   std::string shown = to_valid_utf8("caf\xC3");  // "caf\uFFFD"
#pragma once
#include <cstddef>
#include <string>
#include <string_view>

namespace dsengine {

bool is_valid_utf8(std::string_view text);

// In valid UTF-8: the length of the character that begins at text[at], and its code point.
inline size_t char_bytes(std::string_view text, size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  return lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
}
char32_t char_at(std::string_view text, size_t at);
// Where the character that ends at text[end - 1] begins.
size_t char_before(std::string_view text, size_t end);

void append_utf8(std::string& text, char32_t code);

// Each invalid sequence becomes one U+FFFD, cut as WHATWG, Rust and Python cut them (maximal subparts).
std::string to_valid_utf8(std::string_view bytes);
// How many bytes at the end (0 to 3) are the beginning of a character that more bytes could complete.
size_t incomplete_tail(std::string_view bytes);

bool is_white_space(char32_t code);  // Unicode's White_Space

}  // namespace dsengine
