#include "text/byte_level.h"

#include <array>

#include "text/utf8.h"

namespace dsengine {
namespace {

struct Alphabet {
  Alphabet() {
    byte_of.fill(-1);
    char32_t next = 256;  // for the bytes that print nothing, or a space
    for (int byte = 0; byte < 256; ++byte) {
      const bool prints = (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xFF && byte != 0xAD);
      const char32_t code = prints ? static_cast<char32_t>(byte) : next++;
      append_utf8(char_of[byte], code);
      byte_of[code] = byte;
    }
  }
  std::array<std::string, 256> char_of;
  std::array<int, 324> byte_of;  // by code point; -1: none
};

const Alphabet& alphabet() {
  static const Alphabet instance;
  return instance;
}

}  // namespace

void append_byte_chars(std::string_view bytes, std::string& chars) {
  const auto& char_of = alphabet().char_of;
  for (const char byte : bytes) chars += char_of[static_cast<unsigned char>(byte)];
}

void append_bytes(std::string_view token, std::string& bytes) {
  const auto& byte_of = alphabet().byte_of;
  const size_t before = bytes.size();
  for (size_t at = 0; at < token.size(); at += char_bytes(token, at)) {
    const char32_t code = char_at(token, at);
    if (code >= byte_of.size() || byte_of[code] < 0) {
      bytes.resize(before);
      bytes.append(token);
      return;
    }
    bytes.push_back(static_cast<char>(byte_of[code]));
  }
}

}  // namespace dsengine
