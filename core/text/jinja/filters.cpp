// Filters of single values: texts, numbers, what is undefined.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <map>

#include "text/jinja/operations.h"
#include "text/jinja/print.h"
#include "text/jinja/text.h"

namespace dsengine::jinja {
namespace {

TextPtr soft(Arguments& a, Budget& budget) { return str(a.need("value"), budget); }

template <Case how>
Value cased(Arguments& a, Budget& budget) {
  return change_case(*soft(a, budget), how, budget);
}

Value trim(Arguments& a, Budget& budget) {
  const TextPtr s = soft(a, budget);
  const TextPtr chars = a.text("chars");
  budget.allocate(s->bytes.size()), budget.search(s->bytes.size(), chars ? chars->bytes.size() : 1);
  return text(strip(*s, chars.get(), true, true));
}

Value replace_filter(Arguments& a, Budget& budget) {
  const TextPtr s = soft(a, budget), old = str(a.need("old"), budget), by = str(a.need("new"), budget);
  const Value* count = a.next("count");
  return replace(*s, *old, *by, count && as_integer(*count) ? *as_integer(*count) : -1, budget);
}

Value otherwise(Arguments& a, Budget&) {
  const Value& value = a.need("value");
  const Value* given = a.next("default_value");
  const bool falsy = a.flag("boolean", false);
  if (!value.is_undefined() && !(falsy && !is_true(value))) return value;
  return given ? *given : text("", scaffold);
}

Value indent(Arguments& a, Budget& budget) {
  const Value& value = a.need("s");
  if (value.is_undefined()) undefined_error(value);
  if (!value.text()) throw Error(fmt::format("indent wants a string, not '{}'", type_name(value)));
  const Value* width = a.next("width");
  const bool first = a.flag("first", false), blank = a.flag("blank", false);
  Text by;
  if (width && width->text()) {
    by = *width->text();
  } else {
    const auto n = width ? as_integer(*width) : std::optional<int64_t>(4);
    if (!n) throw Error("indent: the width should be a number or a string");
    budget.allocate(size_t(std::max<int64_t>(*n, 0)));
    by.bytes.assign(size_t(std::max<int64_t>(*n, 0)), ' '), by.origin.assign(by.bytes.size(), scaffold);
  }
  Text whole = *value.text();
  whole.bytes += '\n', whole.origin += scaffold;
  TextBuilder out(budget);
  const auto lines = split_lines(whole, false, budget);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (i > 0) out.add("\n", scaffold);
    if (i > 0 ? blank || !lines[i].bytes.empty() : first) out.add(by);
    out.add(lines[i]);
  }
  return out.take();
}

// As Python's int and float read texts.
std::string plain_number(const std::string& given) {
  Text t{given, std::string(given.size(), scaffold)};
  std::string s = strip(t, nullptr, true, true).bytes, plain;
  for (size_t i = 0; i < s.size(); ++i) {
    const auto digit = [&](size_t j) { return j < s.size() && std::isalnum(static_cast<unsigned char>(s[j])); };
    if (s[i] == '_' && i > 0 && digit(i - 1) && digit(i + 1)) continue;
    plain += s[i];
  }
  return plain.starts_with('+') && !plain.starts_with("+-") ? plain.substr(1) : plain;
}

std::optional<double> read_float(const std::string& given) {
  std::string s = plain_number(given);
  std::ranges::transform(s, s.begin(), [](char c) { return char(std::tolower(static_cast<unsigned char>(c))); });
  double number = 0;
  const auto result = std::from_chars(s.data(), s.data() + s.size(), number);
  if (s.empty() || result.ptr != s.data() + s.size() || s.find('(') != s.npos) return std::nullopt;
  if (result.ec == std::errc::result_out_of_range) return std::strtod(s.c_str(), nullptr);
  return number;
}

std::optional<int64_t> read_int(const std::string& given, int base) {
  std::string s = plain_number(given);
  const bool minus = s.starts_with('-');
  if (minus) s.erase(0, 1);
  const auto prefix = [&](char c) { return s.size() > 2 && s[0] == '0' && (s[1] | 0x20) == c; };
  if ((base == 16 && prefix('x')) || (base == 8 && prefix('o')) || (base == 2 && prefix('b'))) s.erase(0, 2);
  if (s.starts_with('-')) return std::nullopt;
  int64_t number = 0;
  const auto result = std::from_chars(s.data(), s.data() + s.size(), number, base);
  if (s.empty() || result.ptr != s.data() + s.size()) return std::nullopt;
  if (result.ec != std::errc()) throw Error("an integer beyond 64 bits");
  return minus ? -number : number;
}

Value to_int(Arguments& a, Budget&) {
  const Value& value = a.need("value");
  const Value* given = a.next("default");
  const int64_t base = a.integer("base", 10);
  if (base < 2 || base > 36) throw Error("int: the base should be from 2 to 36");
  if (value.is_undefined()) undefined_error(value);
  if (const auto i = as_integer(value)) return *i;
  std::optional<double> real;
  if (const Text* t = value.text()) {
    if (const auto i = read_int(t->bytes, int(base))) return *i;
    real = read_float(t->bytes);
  } else if (const auto* f = value.as<double>()) {
    if (std::isinf(*f)) throw Error("cannot convert float infinity to integer");
    real = *f;
  }
  if (real && std::isfinite(*real)) {
    if (std::abs(*real) >= 9.2e18) throw Error("an integer beyond 64 bits");
    return int64_t(*real);
  }
  return given ? *given : Value(int64_t{0});
}

Value to_float(Arguments& a, Budget&) {
  const Value& value = a.need("value");
  const Value* given = a.next("default");
  if (value.is_undefined()) undefined_error(value);
  if (const auto x = as_number(value)) return *x;
  if (const Text* t = value.text())
    if (const auto x = read_float(t->bytes)) return *x;
  return given ? *given : Value(0.0);
}

Value absolute(Arguments& a, Budget&) {
  const Value& value = a.need("x");
  if (value.is_undefined()) undefined_error(value);
  if (const auto i = as_integer(value)) return *i < 0 ? negative(value) : Value(*i);
  if (const auto* f = value.as<double>()) return std::abs(*f);
  throw Error(fmt::format("bad operand type for abs(): '{}'", type_name(value)));
}

Value rounded(Arguments& a, Budget&) {
  const Value& value = a.need("value");
  const int64_t precision = a.integer("precision", 0);
  const TextPtr given = a.text("method");
  const std::string how = given ? given->bytes : "common";
  if (value.is_undefined()) undefined_error(value);
  const auto x = as_number(value);
  if (!x) throw Error(fmt::format("round: a '{}' is no number", type_name(value)));
  if (how == "common") {
    if (const auto i = as_integer(value); i && precision >= 0) return *i;
    if (precision > 300) return value;
    // Python rounds the exact decimal value, ties to even, as printing does.
    if (precision >= 0) return std::strtod(fmt::format("{:.{}f}", *x, precision).c_str(), nullptr);
    const double unit = std::pow(10.0, double(-precision)), r = std::nearbyint(*x / unit) * unit;
    return as_integer(value) ? Value(int64_t(r)) : Value(r);
  }
  if (how != "ceil" && how != "floor") throw Error("method must be common, ceil or floor");
  const double unit = std::pow(10.0, double(precision));
  return (how == "ceil" ? std::ceil(*x * unit) : std::floor(*x * unit)) / unit;
}

Value string(Arguments& a, Budget& budget) { return soft(a, budget); }
Value same(Arguments& a, Budget&) { return a.need("value"); }

Value escaped(Arguments& a, Budget& budget) {
  const TextPtr s = soft(a, budget);
  TextBuilder out(budget);
  for (size_t i = 0; i < s->bytes.size(); ++i) {
    const char c = s->bytes[i];
    const char* shown = c == '&'    ? "&amp;"
                        : c == '<'  ? "&lt;"
                        : c == '>'  ? "&gt;"
                        : c == '\'' ? "&#39;"
                        : c == '"'  ? "&#34;"
                                    : nullptr;
    if (shown)
      out.add(shown, s->origin[i]);
    else
      out.add(*s, i, i + 1);
  }
  return out.take();
}

Value json(Arguments& a, Budget& budget) {
  const Value& value = a.need("x");
  JsonStyle style;
  style.ascii = a.flag("ensure_ascii", false);
  if (const Value* indent = a.next("indent"); indent && !indent->is_none()) {
    const auto n = as_integer(*indent);
    if (!n || *n < 0 || *n > 100) throw Error("tojson: indent should be a number from 0 to 100");
    style.indent = int(*n);
  }
  if (const Value* both = a.next("separators"); both && !both->is_none()) {
    const auto* s = both->sequence();
    if (!s || s->items.size() != 2 || !s->items[0].text() || !s->items[1].text())
      throw Error("tojson: separators should be two strings");
    style.item_separator = s->items[0].text()->bytes, style.key_separator = s->items[1].text()->bytes;
  }
  style.sorted = a.flag("sort_keys", false);
  return to_json(value, style, budget);
}

}  // namespace

Function text_filter(const std::string& name) {
  static const std::map<std::string, Function, std::less<>> table{{"upper", cased<Case::upper>},
                                                                  {"lower", cased<Case::lower>},
                                                                  {"capitalize", cased<Case::capitalize>},
                                                                  {"title", cased<Case::filter_title>},
                                                                  {"trim", trim},
                                                                  {"replace", replace_filter},
                                                                  {"default", otherwise},
                                                                  {"d", otherwise},
                                                                  {"indent", indent},
                                                                  {"int", to_int},
                                                                  {"float", to_float},
                                                                  {"abs", absolute},
                                                                  {"round", rounded},
                                                                  {"string", string},
                                                                  {"safe", same},
                                                                  {"escape", escaped},
                                                                  {"e", escaped},
                                                                  {"tojson", json}};
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

}  // namespace dsengine::jinja
