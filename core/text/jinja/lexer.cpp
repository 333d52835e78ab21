#include "text/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>

#include "text/jinja/text.h"
#include "text/utf8.h"

namespace dsengine::jinja {
namespace {

using Kind = Token::Kind;

// Line ends become \n, and one at the source's end goes.
std::string with_plain_line_ends(std::string_view source) {
  std::string text;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r')
      text += source[i];
    else if (i + 1 == source.size() || source[i + 1] != '\n')
      text += '\n';
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(with_plain_line_ends(source)) {}

  std::vector<Token> run() {
    while (at_ < source_.size()) text();
    tokens_.push_back({Kind::source_end, "", line_});
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void fail(std::string what) const { throw SyntaxError{std::move(what), line_}; }
  bool here(std::string_view s, size_t offset = 0) const {
    return std::string_view(source_).substr(std::min(at_ + offset, source_.size())).starts_with(s);
  }
  void advance(size_t to) {
    line_ += int(std::count(source_.begin() + int64_t(at_), source_.begin() + int64_t(to), '\n'));
    if (to > at_) at_line_start_ = source_[to - 1] == '\n';
    at_ = to;
  }
  size_t after_spaces(size_t at) const {
    while (at < source_.size() && is_space(char_at(source_, at))) at += char_bytes(source_, at);
    return at;
  }

  // Text up to the next tag, and that tag.
  void text() {
    size_t tag = at_;
    for (;; ++tag) {
      tag = source_.find('{', tag);
      if (tag == std::string::npos || tag + 1 >= source_.size()) {
        emit_text(at_, source_.size());
        return advance(source_.size());
      }
      if (std::string_view("{%#").find(source_[tag + 1]) != std::string_view::npos) break;
    }
    const char kind = source_[tag + 1];
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
    size_t end = tag;
    if (sign == '-') {
      while (end > at_ && is_space(char_at(source_, char_before(source_, end)))) end = char_before(source_, end);
    } else if (kind != '{' && sign != '+') {
      // White space alone between the line's beginning and a block goes.
      const size_t line_end = at_ < tag ? source_.rfind('\n', tag - 1) : std::string::npos;
      const size_t begin = line_end == std::string::npos || line_end < at_ ? at_ : line_end + 1;
      if ((begin > at_ || at_line_start_) && after_spaces(begin) >= tag) end = begin;
    }
    emit_text(at_, end);
    const bool plus = sign == '+' && kind != '{';
    advance(tag);
    if (kind == '#') return comment(tag + 2 + (sign == '-' || plus));
    const size_t inside = tag + 2 + (sign == '-' || plus);
    if (kind == '%' && raw(inside)) return;
    tokens_.push_back({Kind::begin, kind == '{' ? "{{" : "{%", line_});
    advance(inside);
    tag_body(kind == '{' ? "}}" : "%}");
  }

  void emit_text(size_t from, size_t to) {
    if (from < to) tokens_.push_back({Kind::text, source_.substr(from, to - from), line_});
  }

  // Where what follows a closing tag begins, whose last two characters begin at `tag`.
  size_t after_close(size_t tag, bool newline_goes) const {
    const char sign = tag > 0 ? source_[tag - 1] : ' ';
    if (sign == '-') return after_spaces(tag + 2);
    if (newline_goes && sign != '+' && tag + 2 < source_.size() && source_[tag + 2] == '\n') return tag + 3;
    return tag + 2;
  }

  void comment(size_t from) {
    const size_t end = source_.find("#}", from);
    if (end == std::string::npos) fail("a comment {# without its #}");
    const bool signed_close = end > from;  // in "{#-#}" the sign is the opening one's
    advance(signed_close ? after_close(end, true) : end + 2 + (end + 2 < source_.size() && source_[end + 2] == '\n'));
  }

  bool raw(size_t inside) {
    size_t at = after_spaces(inside);
    if (!std::string_view(source_).substr(at).starts_with("raw")) return false;
    at = after_spaces(at + 3);
    const bool strip = at < source_.size() && source_[at] == '-';
    if (!std::string_view(source_).substr(at + strip).starts_with("%}")) return false;
    advance(strip ? after_spaces(at + 3) : at + 2);
    for (size_t tag = at_;; tag += 2) {
      tag = source_.find("{%", tag);
      if (tag == std::string::npos) fail("a raw block without its endraw");
      const char sign = tag + 2 < source_.size() ? source_[tag + 2] : ' ';
      size_t close = after_spaces(tag + 2 + (sign == '-' || sign == '+'));
      if (!std::string_view(source_).substr(close).starts_with("endraw")) continue;
      close = after_spaces(close + 6);
      if (close < source_.size() && (source_[close] == '-' || source_[close] == '+')) ++close;
      if (!std::string_view(source_).substr(close).starts_with("%}")) continue;
      size_t end = tag;
      if (sign == '-') {
        while (end > at_ && is_space(char_at(source_, char_before(source_, end)))) end = char_before(source_, end);
      } else if (sign != '+') {
        const size_t line_end = at_ < tag ? source_.rfind('\n', tag - 1) : std::string::npos;
        const size_t begin = line_end == std::string::npos || line_end < at_ ? at_ : line_end + 1;
        if ((begin > at_ || at_line_start_) && after_spaces(begin) >= tag) end = begin;
      }
      emit_text(at_, end);
      advance(after_close(close, true));
      return true;
    }
  }

  // Tokens up to the tag's end.
  void tag_body(const char* close) {
    std::string open;  // brackets that wait for their partners
    for (;;) {
      advance(after_spaces(at_));
      if (at_ == source_.size()) fail(fmt::format("a tag without its {}", close));
      if (open.empty()) {
        const bool sign = source_[at_] == '-' || (source_[at_] == '+' && close[0] == '%');
        if (here(close, sign)) {
          tokens_.push_back({Kind::end, close, line_});
          return advance(after_close(at_ + sign, close[0] == '%'));
        }
      }
      const char c = source_[at_];
      if (std::isdigit(static_cast<unsigned char>(c)))
        number();
      else if (c == '"' || c == '\'')
        string(c);
      else if (c == '_' || std::isalpha(static_cast<unsigned char>(c)) || (c & 0x80))
        name();
      else
        symbol(open);
    }
  }

  void push(Kind kind, std::string value, size_t end) {
    tokens_.push_back({kind, std::move(value), line_});
    advance(end);
  }

  void name() {
    size_t end = at_;
    const auto is_part = [&](char c) { return c == '_' || std::isalnum(static_cast<unsigned char>(c)) || (c & 0x80); };
    while (end < source_.size() && is_part(source_[end])) ++end;
    push(Kind::name, source_.substr(at_, end - at_), end);
  }

  void number() {
    size_t end = at_;
    bool real = false;
    const auto digit = [&](size_t i) {
      return i < source_.size() && std::isdigit(static_cast<unsigned char>(source_[i]));
    };
    const auto digits = [&] {
      while (digit(end) || (end < source_.size() && source_[end] == '_' && digit(end + 1))) ++end;
    };
    const char base = source_[at_] == '0' && at_ + 1 < source_.size() ? char(std::tolower(source_[at_ + 1])) : ' ';
    if (base == 'x' || base == 'o' || base == 'b') {
      end += 2;
      const auto fits = [&](char c) {
        return base == 'x' ? std::isxdigit(static_cast<unsigned char>(c)) != 0
                           : c >= '0' && c < (base == 'o' ? '8' : '2');
      };
      while (end < source_.size() && (fits(source_[end]) || source_[end] == '_')) ++end;
      if (end == at_ + 2) end = at_ + 1;
      return push(Kind::integer, source_.substr(at_, end - at_), end);
    }
    digits();
    const bool after_dot = at_ > 0 && source_[at_ - 1] == '.';
    if (!after_dot && end < source_.size() && source_[end] == '.' && digit(end + 1)) real = true, ++end, digits();
    if (!after_dot && end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
      const bool sign = end + 1 < source_.size() && (source_[end + 1] == '+' || source_[end + 1] == '-');
      if (digit(end + 1 + sign)) real = true, end += 1 + sign, digits();
    }
    push(real ? Kind::real : Kind::integer, source_.substr(at_, end - at_), end);
  }

  void string(char quote) {
    size_t end = at_ + 1;
    while (end < source_.size() && source_[end] != quote) end += source_[end] == '\\' ? 2 : 1;
    if (end >= source_.size()) fail("a string without its closing quote");
    push(Kind::string, unescaped(std::string_view(source_).substr(at_ + 1, end - at_ - 1)), end + 1);
  }

  std::string unescaped(std::string_view s) const {
    static constexpr std::string_view from = "abfnrtv\\'\"", to = "\a\b\f\n\r\t\v\\'\"";
    std::string text;
    for (size_t i = 0; i < s.size(); ++i) {
      if (s[i] != '\\' || i + 1 == s.size()) {
        text += s[i];
        continue;
      }
      const char c = s[++i];
      const size_t width = c == 'x' ? 2 : c == 'u' ? 4 : c == 'U' ? 8 : 0;
      if (c == '\n') continue;
      if (const size_t at = from.find(c); at != std::string_view::npos) {
        text += to[at];
      } else if (width > 0 || (c >= '0' && c <= '7')) {
        const int base = width > 0 ? 16 : 8;
        std::string digits;
        for (size_t j = width > 0 ? i + 1 : i; j < s.size() && digits.size() < (width > 0 ? width : 3); ++j) {
          const bool fits =
              base == 16 ? std::isxdigit(static_cast<unsigned char>(s[j])) != 0 : s[j] >= '0' && s[j] < '8';
          if (!fits) break;
          digits += s[j];
        }
        if (width > 0 && digits.size() < width) fail("a string's escape is cut short");
        const auto code = char32_t(std::stoul(digits, nullptr, base));
        if (code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) fail("a string's escape is no character");
        append_utf8(text, code);
        i += digits.size() - (width > 0 ? 0 : 1);
      } else {
        text += '\\', text += c;
      }
    }
    return text;
  }

  void symbol(std::string& open) {
    static constexpr std::string_view symbols[] = {"//", "**", "==", "!=", ">=", "<=", "+", "-", "/",
                                                   "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                                   ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};
    for (const auto s : symbols) {
      if (!here(s)) continue;
      if (s == "(" || s == "[" || s == "{") open += s == "(" ? ')' : s == "[" ? ']' : '}';
      if (s == ")" || s == "]" || s == "}") {
        if (open.empty() || open.back() != s[0]) fail(fmt::format("unexpected '{}'", s));
        open.pop_back();
      }
      return push(Kind::symbol, std::string(s), at_ + s.size());
    }
    fail(fmt::format("unexpected character '{}'", source_.substr(at_, 1)));
  }

  std::string source_;
  size_t at_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view source) { return Lexer(source).run(); }

}  // namespace dsengine::jinja
