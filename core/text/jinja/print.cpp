#include "text/jinja/print.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "text/utf8.h"

namespace dsengine::jinja {
namespace {

bool is_printable(char32_t code) {
  if (code == ' ') return true;
  switch (utf8proc_category(utf8proc_int32_t(code))) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP:
    case UTF8PROC_CATEGORY_ZS:
      return false;
    default:
      return true;
  }
}

void add_text_repr(const Text& text, TextBuilder& out) {
  const bool single = text.bytes.find('\'') != std::string::npos && text.bytes.find('"') == std::string::npos;
  const char quote = single ? '"' : '\'';
  out.add({&quote, 1}, scaffold);
  for (size_t at = 0, next; at < text.bytes.size(); at = next) {
    next = at + char_bytes(text.bytes, at);
    const char32_t code = char_at(text.bytes, at);
    const char origin = text.origin[at];
    if (code == char32_t(quote) || code == '\\')
      out.add(std::string{'\\', char(code)}, origin);
    else if (code == '\n' || code == '\r' || code == '\t')
      out.add(code == '\n' ? "\\n" : code == '\r' ? "\\r" : "\\t", origin);
    else if (is_printable(code))
      out.add(text, at, next);
    else if (code < 0x100)
      out.add(fmt::format("\\x{:02x}", uint32_t(code)), origin);
    else
      out.add(code < 0x10000 ? fmt::format("\\u{:04x}", uint32_t(code)) : fmt::format("\\U{:08x}", uint32_t(code)),
              origin);
  }
  out.add({&quote, 1}, scaffold);
}

std::string scalar_repr(const Value& value) {
  if (value.is_none()) return "None";
  if (const auto* b = value.as<bool>()) return *b ? "True" : "False";
  if (const auto* i = value.as<int64_t>()) return std::to_string(*i);
  if (const auto* f = value.as<double>()) return shown_float(*f);
  if (value.is_undefined()) return "Undefined";
  if (const auto* l = value.loop()) return fmt::format("<LoopContext {}/{}>", l->index + 1, l->items.size());
  return fmt::format("<{}>", type_name(value));
}

class JsonWriter {
 public:
  JsonWriter(const JsonStyle& style, TextBuilder& out, Budget& budget) : style_(style), out_(out), budget_(budget) {
    items_ = !style.item_separator.empty() ? style.item_separator : style.indent >= 0 ? "," : ", ";
    keys_ = !style.key_separator.empty() ? style.key_separator : ": ";
  }

  void write(const Value& value, int level) {
    budget_.step();
    if (const Text* t = value.text()) return quote(*t);
    if (const auto* s = value.sequence(); s && s->kind <= Sequence::Kind::tuple) {
      list('[', ']', s->items.size(), level, [&](size_t i) { write(s->items[i], level + 1); });
    } else if (const auto* d = value.dict()) {
      auto items = d->items;
      if (style_.sorted)
        std::ranges::stable_sort(
            items, [&](const auto& a, const auto& b) { return compare(a.first, b.first, budget_) == -1; });
      list('{', '}', items.size(), level, [&](size_t i) {
        key(items[i].first);
        out_.add(keys_, scaffold);
        write(items[i].second, level + 1);
      });
    } else if (value.is_none()) {
      out_.add("null", scaffold);
    } else if (value.is_number()) {
      out_.add(number(value), scaffold);
    } else {
      throw Error(fmt::format("Object of type {} is not JSON serializable", type_name(value)));
    }
  }

 private:
  static std::string number(const Value& value) {
    if (const auto* b = value.as<bool>()) return *b ? "true" : "false";
    if (const auto* f = value.as<double>()) {
      if (std::isnan(*f)) return "NaN";
      if (std::isinf(*f)) return *f > 0 ? "Infinity" : "-Infinity";
    }
    return scalar_repr(value);
  }
  void key(const Value& key) {
    if (const Text* t = key.text()) return quote(*t);
    if (!key.is_none() && !key.is_number())
      throw Error(fmt::format("keys must be str, int, float, bool or None, not {}", type_name(key)));
    out_.add("\"" + (key.is_none() ? "null" : number(key)) + "\"", scaffold);
  }
  template <class F>
  void list(char open, char close, size_t count, int level, F&& item) {
    out_.add({&open, 1}, scaffold);
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) out_.add(items_, scaffold);
      new_line(level + 1);
      item(i);
    }
    if (count > 0) new_line(level);
    out_.add({&close, 1}, scaffold);
  }
  void new_line(int level) {
    if (style_.indent >= 0) out_.add("\n" + std::string(size_t(style_.indent) * size_t(level), ' '), scaffold);
  }
  void quote(const Text& text) {
    out_.add("\"", scaffold);
    for (size_t at = 0, next; at < text.bytes.size(); at = next) {
      next = at + char_bytes(text.bytes, at);
      const char32_t code = char_at(text.bytes, at);
      const char origin = text.origin[at];
      if (code == '"' || code == '\\')
        out_.add(std::string{'\\', char(code)}, origin);
      else if (code == '\n' || code == '\r' || code == '\t' || code == '\b' || code == '\f')
        out_.add(code == '\n'   ? "\\n"
                 : code == '\r' ? "\\r"
                 : code == '\t' ? "\\t"
                 : code == '\b' ? "\\b"
                                : "\\f",
                 origin);
      else if (code < 0x20 || (style_.ascii && code > 0x7E && code < 0x10000))
        out_.add(fmt::format("\\u{:04x}", uint32_t(code)), origin);
      else if (style_.ascii && code >= 0x10000)
        out_.add(fmt::format("\\u{:04x}\\u{:04x}", 0xD800 + (uint32_t(code - 0x10000) >> 10),
                             0xDC00 + (uint32_t(code - 0x10000) & 0x3FF)),
                 origin);
      else
        out_.add(text, at, next);
    }
    out_.add("\"", scaffold);
  }

  const JsonStyle& style_;
  TextBuilder& out_;
  Budget& budget_;
  std::string items_, keys_;
};

}  // namespace

std::string shown_float(double number) {
  if (std::isnan(number)) return "nan";
  if (std::isinf(number)) return number > 0 ? "inf" : "-inf";
  char buffer[64];
  // The shortest digits that read back as the number, then Python's choice of their form.
  auto* end = std::to_chars(buffer, buffer + sizeof buffer, number, std::chars_format::scientific).ptr;
  std::string digits(buffer, end);
  const std::string sign = digits[0] == '-' ? "-" : "";
  digits.erase(0, sign.size());
  const size_t e = digits.find('e');
  const int exponent = std::stoi(digits.substr(e + 1));
  std::string mantissa = digits.substr(0, e);
  if (exponent < -4 || exponent >= 16)
    return fmt::format("{}{}e{}{:02}", sign, mantissa, exponent < 0 ? '-' : '+', std::abs(exponent));
  std::erase(mantissa, '.');
  if (exponent < 0) return sign + "0." + std::string(size_t(-exponent - 1), '0') + mantissa;
  if (mantissa.size() <= size_t(exponent) + 1)
    return sign + mantissa + std::string(size_t(exponent) + 1 - mantissa.size(), '0') + ".0";
  return sign + mantissa.substr(0, size_t(exponent) + 1) + "." + mantissa.substr(size_t(exponent) + 1);
}

void add_repr(const Value& value, TextBuilder& out, Budget& budget) {
  budget.step();
  if (const Text* t = value.text()) return add_text_repr(*t, out);
  if (const auto* s = value.sequence()) {
    const bool tuple = s->kind == Sequence::Kind::tuple;
    out.add(tuple ? "(" : "[", scaffold);
    for (size_t i = 0; i < s->items.size(); ++i) {
      if (i > 0) out.add(", ", scaffold);
      add_repr(s->items[i], out, budget);
    }
    out.add(tuple && s->items.size() == 1 ? ",)" : tuple ? ")" : "]", scaffold);
  } else if (const auto* d = value.dict()) {
    out.add("{", scaffold);
    for (size_t i = 0; i < d->items.size(); ++i) {
      if (i > 0) out.add(", ", scaffold);
      add_repr(d->items[i].first, out, budget);
      out.add(": ", scaffold);
      add_repr(d->items[i].second, out, budget);
    }
    out.add("}", scaffold);
  } else {
    out.add(scalar_repr(value), scaffold);
  }
}

TextPtr str(const Value& value, Budget& budget) {
  if (const auto* t = value.as<TextPtr>()) return *t;
  TextBuilder out(budget);
  if (!value.is_undefined()) add_repr(value, out, budget);
  return out.take();
}

TextPtr to_json(const Value& value, const JsonStyle& style, Budget& budget) {
  TextBuilder out(budget);
  JsonWriter(style, out, budget).write(value, 0);
  return out.take();
}

}  // namespace dsengine::jinja
