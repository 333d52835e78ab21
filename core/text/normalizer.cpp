#include "text/normalizer.h"

#include <utf8proc.h>

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <new>
#include <vector>

#include "text/byte_level.h"
#include "text/newer_unicode.h"
#include "text/older_unicode.h"
#include "text/utf8.h"

namespace dsengine {
namespace {

bool is_ascii(std::string_view text) {
  return std::ranges::all_of(text, [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

void append_form(std::string_view text, int options, std::string& normalized) {
  if (text.empty()) return;
  utf8proc_uint8_t* result = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()), static_cast<utf8proc_ssize_t>(text.size()),
                   &result, static_cast<utf8proc_option_t>(UTF8PROC_STABLE | options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(result, &std::free);
  if (length < 0) throw std::bad_alloc();  // the text is valid UTF-8, so nothing else can fail
  normalized.append(reinterpret_cast<const char*>(result), static_cast<size_t>(length));
}

Normalizer unicode_form(int options) {
  return [options](Segment& segment) {
    if (is_ascii(segment.text)) return;
    const std::string_view text = segment.text;
    std::string normalized;
    size_t begin = 0;
    for (size_t at = 0, bytes = 0; at < text.size(); at += bytes) {
      bytes = char_bytes(text, at);
      if (bytes == 1 || !is_newer_than_forms(char_at(text, at))) continue;
      append_form(text.substr(begin, at - begin), options, normalized);
      normalized.append(text, at, bytes);
      begin = at + bytes;
    }
    append_form(text.substr(begin), options, normalized);
    segment.text = std::move(normalized);
  };
}

// Character by character, as Rust's char::to_lowercase: no final sigma.
void lowercase(Segment& segment) {
  std::string lower;
  lower.reserve(segment.text.size());
  for (size_t at = 0; at < segment.text.size(); at += char_bytes(segment.text, at)) {
    const char32_t code = char_at(segment.text, at);
    if (code == 0x130) {
      lower += "i\u0307";  // the one character whose lower case is two
    } else if (const char32_t newer = newer_lower_case(code)) {
      append_utf8(lower, newer);
    } else {
      append_utf8(lower, static_cast<char32_t>(utf8proc_tolower(static_cast<utf8proc_int32_t>(code))));
    }
  }
  segment.text = std::move(lower);
}

void strip_accents(Segment& segment) {
  std::string kept;
  kept.reserve(segment.text.size());
  for (size_t at = 0, bytes = 0; at < segment.text.size(); at += bytes) {
    bytes = char_bytes(segment.text, at);
    const char32_t code = char_at(segment.text, at);
    const auto category = utf8proc_category(static_cast<utf8proc_int32_t>(code));
    const bool known = category == UTF8PROC_CATEGORY_MN || category == UTF8PROC_CATEGORY_MC ||
                       category == UTF8PROC_CATEGORY_ME || code == 0x1CF2 || code == 0x1CF3;  // marks once
    const bool is_mark = known && !is_newer_mark(code);
    if (!is_mark) kept.append(segment.text, at, bytes);
    if (is_mark && at == 0) segment.at_start = false;
  }
  segment.text = std::move(kept);
}

void strip_left(Segment& segment) {
  size_t begin = 0;
  while (begin < segment.text.size() && is_white_space(char_at(segment.text, begin))) {
    begin += char_bytes(segment.text, begin);
  }
  if (begin > 0) segment.at_start = false;
  segment.text.erase(0, begin);
}

void strip_right(Segment& segment) {
  size_t end = segment.text.size();
  for (size_t last; end > 0 && is_white_space(char_at(segment.text, last = char_before(segment.text, end)));)
    end = last;
  segment.text.erase(end);
}

Normalizer replace(const TokenizerJson& json, const std::string& where) {
  return [pattern = make_pattern(json.at("pattern"), where),
          content = json.at("content").get<std::string>()](Segment& segment) {
    Span first;
    if (content.empty() && pattern.find(segment.text, 0, first) && first.begin == 0 && first.end > 0) {
      segment.at_start = false;
    }
    segment.text = replace_all(segment.text, pattern, content);
  };
}

Normalizer sequence(const TokenizerJson& json, const std::string& where) {
  std::vector<Normalizer> parts;
  for (const auto& part : json.at("normalizers")) parts.push_back(make_normalizer(part, where));
  return [parts = std::move(parts), where](Segment& segment) {
    // Replacements in a row can grow a text exponentially; no honest one grows it so.
    const size_t most_bytes = (size_t{1} << 20) + 256 * segment.text.size();
    for (const auto& part : parts) {
      part(segment);
      DSE_CHECK_USER(segment.text.size() <= most_bytes, "{}: its normalizers make more than {} bytes of a text", where,
                     most_bytes);
    }
  };
}

}  // namespace

Regex make_pattern(const TokenizerJson& json, const std::string& where) {
  if (json.contains("Regex")) return Regex(json.at("Regex").get<std::string>(), where);
  return Regex::literal(json.at("String").get<std::string>(), where);
}

std::string replace_all(const std::string& text, const Regex& pattern, const std::string& content) {
  constexpr size_t most_bytes = 1 << 28;
  std::string result;
  size_t end = 0;
  pattern.for_each_match(text, [&](Span match) {
    DSE_CHECK_USER(result.size() <= most_bytes, "a tokenizer's replacement makes more than {} bytes of a text",
                   most_bytes);
    result.append(text, end, match.begin - end).append(content);
    end = match.end;
  });
  return result.append(text, end);
}

Normalizer make_normalizer(const TokenizerJson& json, const std::string& where) {
  if (json.is_null()) return [](Segment&) {};
  const std::string type = type_of(json);
  if (type == "Sequence") return sequence(json, where);
  if (type == "NFC") return unicode_form(UTF8PROC_COMPOSE);
  if (type == "NFD") return unicode_form(UTF8PROC_DECOMPOSE);
  if (type == "NFKC") return unicode_form(UTF8PROC_COMPOSE | UTF8PROC_COMPAT);
  if (type == "NFKD") return unicode_form(UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT);
  if (type == "Lowercase") return lowercase;
  if (type == "StripAccents") return strip_accents;
  if (type == "ByteLevel") {
    return [](Segment& segment) {
      std::string chars;
      append_byte_chars(segment.text, chars);
      segment.text = std::move(chars);
    };
  }
  if (type == "Replace") return replace(json, where);
  if (type == "Prepend") {
    return [prefix = json.at("prepend").get<std::string>()](Segment& segment) {
      if (!segment.text.empty()) segment.text.insert(0, prefix);
    };
  }
  if (type == "Strip") {
    return [left = value_or(json, "strip_left", true), right = value_or(json, "strip_right", true)](Segment& segment) {
      if (left) strip_left(segment);
      if (right) strip_right(segment);
    };
  }
  unsupported(where, "normalizer", type,
              "Sequence, NFC, NFD, NFKC, NFKD, Lowercase, Replace, Prepend, Strip, StripAccents, ByteLevel");
}

}  // namespace dsengine
