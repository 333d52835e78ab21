#include "text/utf8.h"

#include <algorithm>

namespace dsengine {
namespace {

struct Scan {
  size_t bytes;  // of the character, or of the longest part that could have begun one
  enum { valid, invalid, truncated } kind;
};

// The Unicode standard's table 3-7: the second byte's range depends on the first, the rest are 80..BF.
Scan scan(std::string_view bytes, size_t at) {
  const auto lead = static_cast<unsigned char>(bytes[at]);
  if (lead < 0x80) return {1, Scan::valid};
  if (lead < 0xC2 || lead > 0xF4) return {1, Scan::invalid};
  const size_t length = lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  unsigned char low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned char high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  for (size_t i = 1; i < length; ++i, low = 0x80, high = 0xBF) {
    if (at + i == bytes.size()) return {i, Scan::truncated};
    const auto next = static_cast<unsigned char>(bytes[at + i]);
    if (next < low || next > high) return {i, Scan::invalid};
  }
  return {length, Scan::valid};
}

}  // namespace

bool is_valid_utf8(std::string_view text) {
  for (size_t at = 0; at < text.size();) {
    const Scan next = scan(text, at);
    if (next.kind != Scan::valid) return false;
    at += next.bytes;
  }
  return true;
}

char32_t char_at(std::string_view text, size_t at) {
  const size_t length = char_bytes(text, at);
  const auto lead = static_cast<unsigned char>(text[at]);
  if (length == 1) return lead;
  char32_t code = lead & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; ++i) code = code << 6 | (static_cast<unsigned char>(text[at + i]) & 0x3F);
  return code;
}

size_t char_before(std::string_view text, size_t end) {
  do --end;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80);
  return end;
}

void append_utf8(std::string& text, char32_t code) {
  const auto byte = [&](char32_t value) { text.push_back(static_cast<char>(value)); };
  if (code < 0x80) {
    byte(code);
  } else if (code < 0x800) {
    byte(0xC0 | code >> 6), byte(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    byte(0xE0 | code >> 12), byte(0x80 | (code >> 6 & 0x3F)), byte(0x80 | (code & 0x3F));
  } else {
    byte(0xF0 | code >> 18), byte(0x80 | (code >> 12 & 0x3F));
    byte(0x80 | (code >> 6 & 0x3F)), byte(0x80 | (code & 0x3F));
  }
}

std::string to_valid_utf8(std::string_view bytes) {
  std::string text;
  text.reserve(bytes.size());
  for (size_t at = 0; at < bytes.size();) {
    const Scan next = scan(bytes, at);
    if (next.kind == Scan::valid) {
      text.append(bytes.substr(at, next.bytes));
    } else {
      text.append("\uFFFD");
    }
    at += next.bytes;
  }
  return text;
}

size_t incomplete_tail(std::string_view bytes) {
  for (size_t length = std::min<size_t>(3, bytes.size()); length > 0; --length) {
    const Scan last = scan(bytes, bytes.size() - length);
    if (last.kind == Scan::truncated && last.bytes == length) return length;
  }
  return 0;
}

bool is_white_space(char32_t c) {
  return (c >= 0x09 && c <= 0x0D) || c == 0x20 || c == 0x85 || c == 0xA0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F || c == 0x205F || c == 0x3000;
}

}  // namespace dsengine
