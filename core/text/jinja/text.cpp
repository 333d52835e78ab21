#include "text/jinja/text.h"

#include <utf8proc.h>

#include <algorithm>

#include "text/utf8.h"

namespace dsengine::jinja {

int64_t characters(const Text& text) {
  return std::ranges::count_if(text.bytes, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; });
}

size_t byte_of(const Text& text, int64_t character) {
  size_t at = 0;
  for (; character > 0 && at < text.bytes.size(); --character) at += char_bytes(text.bytes, at);
  return at;
}

Text cut(const Text& text, size_t from, size_t to) {
  return {text.bytes.substr(from, to - from), text.origin.substr(from, to - from)};
}

bool is_space(char32_t code) { return is_white_space(code) || (code >= 0x1C && code <= 0x1F); }

Text strip(const Text& text, const Text* characters, bool left, bool right) {
  const auto goes = [&](size_t at) {
    if (!characters) return is_space(char_at(text.bytes, at));
    const std::string_view c = std::string_view(text.bytes).substr(at, char_bytes(text.bytes, at));
    return characters->bytes.find(c) != std::string::npos;  // UTF-8: a character is found at characters alone
  };
  size_t from = 0, to = text.bytes.size();
  while (left && from < to && goes(from)) from += char_bytes(text.bytes, from);
  while (right && from < to && goes(char_before(text.bytes, to))) to = char_before(text.bytes, to);
  return cut(text, from, to);
}

TextPtr replace(const Text& text, const Text& old, const Text& by, int64_t count, Budget& budget) {
  TextBuilder out(budget);
  budget.search(text.bytes.size(), old.bytes.size());
  size_t at = 0;
  if (old.bytes.empty()) {  // Python puts it before each character and at the end
    for (; count != 0; --count) {
      out.add(by);
      if (at == text.bytes.size()) break;
      const size_t next = at + char_bytes(text.bytes, at);
      out.add(text, at, next);
      at = next;
    }
  } else {
    for (size_t found; count != 0 && (found = text.bytes.find(old.bytes, at)) != std::string::npos; --count) {
      budget.step();
      out.add(text, at, found), out.add(by);
      at = found + old.bytes.size();
    }
  }
  out.add(text, at, text.bytes.size());
  return out.take();
}

namespace {

// Full case mappings where one character becomes several, of those that texts have.
void add_mapped(char32_t code, bool upper, bool title, char origin, TextBuilder& out) {
  static constexpr const char* all[] = {"FF", "FI", "FL", "FFI", "FFL", "ST", "ST"};
  static constexpr const char* first[] = {"Ff", "Fi", "Fl", "Ffi", "Ffl", "St", "St"};
  if (code == 0xDF && upper) return out.add(title ? "Ss" : "SS", origin);
  if (code == 0x130 && !upper) return out.add("i\u0307", origin);
  if (code == 0x149 && upper) return out.add("\u02BCN", origin);
  if (code >= 0xFB00 && code <= 0xFB06 && upper) return out.add((title ? first : all)[code - 0xFB00], origin);
  const auto c = utf8proc_int32_t(code);
  std::string bytes;
  append_utf8(bytes, char32_t(title ? utf8proc_totitle(c) : upper ? utf8proc_toupper(c) : utf8proc_tolower(c)));
  out.add(bytes, origin);
}

bool is_cased(char32_t code) {
  const auto c = utf8proc_category(utf8proc_int32_t(code));
  return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT ||
         utf8proc_islower(utf8proc_int32_t(code)) || utf8proc_isupper(utf8proc_int32_t(code));
}

// Marks and quotes that stand within words without ending them.
bool is_case_ignorable(char32_t code) {
  const auto c = utf8proc_category(utf8proc_int32_t(code));
  return c == UTF8PROC_CATEGORY_MN || c == UTF8PROC_CATEGORY_ME || c == UTF8PROC_CATEGORY_CF ||
         c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_SK || code == '\'' || code == '.' || code == ':' ||
         code == '^' || code == '`' || code == 0xB7 || code == 0x2018 || code == 0x2019 || code == 0x2024;
}

// A capital sigma at a word's end becomes the final one.
bool ends_word(const std::string& text, size_t at) {
  size_t before = at;
  while (before > 0 && is_case_ignorable(char_at(text, char_before(text, before)))) before = char_before(text, before);
  if (before == 0 || !is_cased(char_at(text, char_before(text, before)))) return false;
  size_t after = at + char_bytes(text, at);
  while (after < text.size() && is_case_ignorable(char_at(text, after))) after += char_bytes(text, after);
  return after == text.size() || !is_cased(char_at(text, after));
}

}  // namespace

TextPtr change_case(const Text& text, Case how, Budget& budget) {
  TextBuilder out(budget);
  budget.step(int64_t(text.bytes.size()) / 4);
  bool within = false;  // a word, as titles count them
  for (size_t at = 0; at < text.bytes.size(); at += char_bytes(text.bytes, at)) {
    const char32_t code = char_at(text.bytes, at);
    const bool first = how == Case::capitalize ? at == 0 : !within;
    const bool titled = how != Case::upper && how != Case::lower && first;
    const bool upper = how == Case::upper || titled;
    if (!upper && code == 0x3A3)
      out.add(ends_word(text.bytes, at) ? "\u03C2" : "\u03C3", text.origin[at]);
    else
      add_mapped(code, upper, titled && how != Case::filter_title, text.origin[at], out);
    // The filter begins words after white space and - ( { [ <; the method after whatever has no case.
    within =
        how == Case::filter_title
            ? !(is_space(code) || (code < 128 && std::string_view("-({[<").find(char(code)) != std::string_view::npos))
            : is_cased(code);
  }
  return out.take();
}

std::vector<Text> split(const Text& text, const Text* separator, int64_t most, bool from_right, Budget& budget) {
  const std::string& s = text.bytes;
  if (separator && separator->bytes.empty()) throw Error("empty separator");
  std::vector<std::pair<size_t, size_t>> parts;
  const auto space_at = [&](size_t at) { return is_space(char_at(s, at)); };
  if (separator) {
    budget.search(s.size(), separator->bytes.size());
    std::vector<size_t> found;
    const std::string& sep = separator->bytes;
    if (from_right) {
      for (size_t end = s.size(); int64_t(found.size()) != most && end >= sep.size();) {
        const size_t at = s.rfind(sep, end - sep.size());
        if (at == std::string::npos) break;
        found.insert(found.begin(), at), end = at;
        budget.step(1 + int64_t(found.size()) / 64);
      }
    } else {
      for (size_t at = 0; int64_t(found.size()) != most && (at = s.find(sep, at)) != std::string::npos;
           at += sep.size())
        found.push_back(at);
    }
    size_t begin = 0;
    for (const size_t at : found) parts.push_back({begin, at}), begin = at + sep.size();
    parts.push_back({begin, s.size()});
  } else if (!from_right) {
    for (size_t at = 0; at < s.size();) {
      while (at < s.size() && space_at(at)) at += char_bytes(s, at);
      if (at == s.size()) break;
      size_t end = at;
      if (int64_t(parts.size()) == most) {
        parts.push_back({at, s.size()});  // Python leaves the space at the far end
        break;
      }
      while (end < s.size() && !space_at(end)) end += char_bytes(s, end);
      parts.push_back({at, end}), at = end;
    }
  } else {
    for (size_t end = s.size(); end > 0;) {
      while (end > 0 && space_at(char_before(s, end))) end = char_before(s, end);
      if (end == 0) break;
      size_t at = end;
      if (int64_t(parts.size()) == most) {
        parts.push_back({0, end});
        break;
      }
      while (at > 0 && !space_at(char_before(s, at))) at = char_before(s, at);
      parts.push_back({at, end}), end = at;
    }
    std::ranges::reverse(parts);
  }
  std::vector<Text> texts;
  budget.allocate(parts.size() * 128 + s.size()), budget.step(int64_t(parts.size()));
  for (const auto& [from, to] : parts) texts.push_back(cut(text, from, to));
  return texts;
}

std::vector<Text> split_lines(const Text& text, bool keep_ends, Budget& budget) {
  const std::string& s = text.bytes;
  std::vector<Text> lines;
  for (size_t begin = 0; begin < s.size();) {
    size_t end = begin, next = 0;
    for (; end < s.size(); end += char_bytes(s, end)) {
      const char32_t c = char_at(s, end);
      if ((c >= 0x0A && c <= 0x0D) || (c >= 0x1C && c <= 0x1E) || c == 0x85 || c == 0x2028 || c == 0x2029) break;
    }
    next = end < s.size() ? end + char_bytes(s, end) : end;
    if (end + 1 < s.size() && s[end] == '\r' && s[end + 1] == '\n') ++next;
    lines.push_back(cut(text, begin, keep_ends ? next : end));
    budget.allocate(128 + next - begin), budget.step();
    begin = next;
  }
  return lines;
}

}  // namespace dsengine::jinja
