// The methods of texts: "a b".split(), …
#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <map>

#include "text/jinja/operations.h"
#include "text/jinja/print.h"
#include "text/jinja/text.h"
#include "text/utf8.h"

namespace dsengine::jinja {
namespace {

using Method = Value (*)(const Text&, Arguments&, Budget&);

Value list_of(std::vector<Text> texts, Budget& budget) {
  Values items;
  for (auto& t : texts) items.push_back(text(std::move(t)));
  return sequence(Sequence::Kind::list, std::move(items), budget);
}

template <bool left, bool right>
Value stripped(const Text& s, Arguments& a, Budget& budget) {
  const TextPtr chars = a.text("chars");
  budget.allocate(s.bytes.size()), budget.search(s.bytes.size(), chars ? chars->bytes.size() : 1);
  return text(strip(s, chars.get(), left, right));
}

template <Case how>
Value cased(const Text& s, Arguments&, Budget& budget) {
  return change_case(s, how, budget);
}

template <bool from_right>
Value splitted(const Text& s, Arguments& a, Budget& budget) {
  const TextPtr separator = a.text("sep");
  return list_of(split(s, separator.get(), a.integer("maxsplit", -1), from_right, budget), budget);
}

template <bool at_end>
Value begins_or_ends(const Text& s, Arguments& a, Budget& budget) {
  const Value& wanted = a.need("affix");
  const auto fits = [&](const Value& v) {
    if (!v.text())
      throw Error(fmt::format("startswith and endswith want a string or a tuple of them, not '{}'", type_name(v)));
    budget.step(1 + int64_t(std::min(s.bytes.size(), v.text()->bytes.size())) / 64);
    return at_end ? s.bytes.ends_with(v.text()->bytes) : s.bytes.starts_with(v.text()->bytes);
  };
  if (const auto* tuple = wanted.sequence(); tuple && tuple->kind == Sequence::Kind::tuple)
    return std::ranges::any_of(tuple->items, fits);
  return fits(wanted);
}

template <bool from_right, bool must>
Value found(const Text& s, Arguments& a, Budget& budget) {
  const Value& wanted = a.need("sub");
  if (!wanted.text()) throw Error(fmt::format("must be str, not {}", type_name(wanted)));
  const int64_t size = characters(s);
  const auto placed = [&](int64_t i) { return std::clamp<int64_t>(i < 0 ? i + size : i, 0, size + 1); };
  const int64_t from = placed(a.integer("start", 0)), to = std::min(placed(a.integer("end", size)), size);
  budget.step(int64_t(s.bytes.size()) / 16), budget.search(s.bytes.size(), wanted.text()->bytes.size());
  std::optional<int64_t> at;
  if (from <= to) {
    const size_t begin = byte_of(s, from);
    const std::string_view part = std::string_view(s.bytes).substr(begin, byte_of(s, to) - begin);
    const size_t byte = from_right ? part.rfind(wanted.text()->bytes) : part.find(wanted.text()->bytes);
    if (byte != part.npos) at = from + characters({std::string(part.substr(0, byte)), ""});
  }
  if (!at && must) throw Error("substring not found");
  return at.value_or(-1);
}

Value count(const Text& s, Arguments& a, Budget& budget) {
  const Value& wanted = a.need("sub");
  if (!wanted.text()) throw Error(fmt::format("must be str, not {}", type_name(wanted)));
  const std::string& sub = wanted.text()->bytes;
  if (sub.empty()) return characters(s) + 1;
  budget.step(int64_t(s.bytes.size()) / 16), budget.search(s.bytes.size(), sub.size());
  int64_t n = 0;
  for (size_t at = 0; (at = s.bytes.find(sub, at)) != std::string::npos; at += sub.size()) ++n;
  return n;
}

Value replaced(const Text& s, Arguments& a, Budget& budget) {
  const Value &old = a.need("old"), &by = a.need("new");
  if (!old.text() || !by.text()) throw Error("replace() wants strings");
  return replace(s, *old.text(), *by.text(), a.integer("count", -1), budget);
}

Value joined(const Text& s, Arguments& a, Budget& budget) {
  TextBuilder out(budget);
  bool first = true;
  const Value& items = a.need("iterable");
  if (items.is_undefined()) return text("", scaffold);
  for (const Value& v : iterate(items, budget)) {
    if (!v.text()) throw Error(fmt::format("join(): expected str instance, {} found", type_name(v)));
    if (!first) out.add(s);
    out.add(*v.text()), first = false;
  }
  return out.take();
}

Value lines(const Text& s, Arguments& a, Budget& budget) {
  return list_of(split_lines(s, a.flag("keepends", false), budget), budget);
}

template <bool at_end>
Value without_affix(const Text& s, Arguments& a, Budget& budget) {
  const TextPtr affix = a.text("affix");
  if (!affix) throw Error("removeprefix and removesuffix want a string");
  budget.allocate(s.bytes.size());
  const size_t n = affix->bytes.size();
  if (at_end) return text(s.bytes.ends_with(affix->bytes) ? cut(s, 0, s.bytes.size() - n) : s);
  return text(s.bytes.starts_with(affix->bytes) ? cut(s, n, s.bytes.size()) : s);
}

template <bool from_right>
Value partition(const Text& s, Arguments& a, Budget& budget) {
  const TextPtr by = a.text("sep");
  if (!by || by->bytes.empty()) throw Error("empty separator");
  budget.allocate(s.bytes.size()), budget.search(s.bytes.size(), by->bytes.size());
  const size_t at = from_right ? s.bytes.rfind(by->bytes) : s.bytes.find(by->bytes);
  const Value none = text("", scaffold);
  Values parts;
  if (at == std::string::npos)
    parts = from_right ? Values{none, none, text(s)} : Values{text(s), none, none};
  else
    parts = {text(cut(s, 0, at)), text(cut(s, at, at + by->bytes.size())),
             text(cut(s, at + by->bytes.size(), s.bytes.size()))};
  return sequence(Sequence::Kind::tuple, std::move(parts), budget);
}

enum class Class { digit, alpha, alnum, space, upper, lower };
template <Class wanted>
Value all_are(const Text& s, Arguments&, Budget& budget) {
  budget.step(int64_t(s.bytes.size()) / 16);
  bool some = false;
  for (size_t at = 0; at < s.bytes.size(); at += char_bytes(s.bytes, at)) {
    const char32_t c = char_at(s.bytes, at);
    const auto kind = utf8proc_category(utf8proc_int32_t(c));
    const bool letter = kind >= UTF8PROC_CATEGORY_LU && kind <= UTF8PROC_CATEGORY_LO;
    const bool digit = kind == UTF8PROC_CATEGORY_ND || c == 0xB2 || c == 0xB3 || c == 0xB9;
    const bool up = utf8proc_isupper(utf8proc_int32_t(c)), low = utf8proc_islower(utf8proc_int32_t(c));
    if constexpr (wanted == Class::upper || wanted == Class::lower) {
      if (wanted == Class::upper ? low : up) return false;
      some |= wanted == Class::upper ? up : low;
    } else {
      const bool fits = wanted == Class::digit   ? digit
                        : wanted == Class::alpha ? letter
                        : wanted == Class::alnum ? letter || digit
                                                 : is_space(c);
      if (!fits) return false;
      some = true;
    }
  }
  return some;
}

const std::map<std::string, Method, std::less<>>& methods() {
  static const std::map<std::string, Method, std::less<>> table{{"strip", stripped<true, true>},
                                                                {"lstrip", stripped<true, false>},
                                                                {"rstrip", stripped<false, true>},
                                                                {"upper", cased<Case::upper>},
                                                                {"lower", cased<Case::lower>},
                                                                {"capitalize", cased<Case::capitalize>},
                                                                {"title", cased<Case::title>},
                                                                {"split", splitted<false>},
                                                                {"rsplit", splitted<true>},
                                                                {"splitlines", lines},
                                                                {"startswith", begins_or_ends<false>},
                                                                {"endswith", begins_or_ends<true>},
                                                                {"find", found<false, false>},
                                                                {"rfind", found<true, false>},
                                                                {"index", found<false, true>},
                                                                {"rindex", found<true, true>},
                                                                {"count", count},
                                                                {"replace", replaced},
                                                                {"join", joined},
                                                                {"removeprefix", without_affix<false>},
                                                                {"removesuffix", without_affix<true>},
                                                                {"partition", partition<false>},
                                                                {"rpartition", partition<true>},
                                                                {"isdigit", all_are<Class::digit>},
                                                                {"isalpha", all_are<Class::alpha>},
                                                                {"isalnum", all_are<Class::alnum>},
                                                                {"isspace", all_are<Class::space>},
                                                                {"isupper", all_are<Class::upper>},
                                                                {"islower", all_are<Class::lower>}};
  return table;
}

}  // namespace

bool is_text_method(const std::string& name) { return name == "format" || methods().contains(name); }

Value text_method(const std::string& name, const TextPtr& self, const Values& values, const Named& named,
                  Budget& budget) {
  if (name == "format") return format_braces(*self, values, named, budget);
  Arguments arguments(name, values, named);
  Value result = methods().at(name)(*self, arguments, budget);
  arguments.done();
  return result;
}

TextPtr format_percent(const Text& form, const Value& given, Budget& budget) {
  TextBuilder out(budget);
  const auto* tuple = given.sequence();
  const bool several = tuple && tuple->kind == Sequence::Kind::tuple;
  const Values values = several ? tuple->items : Values{given};
  size_t used = 0;
  for (size_t at = 0; at < form.bytes.size();) {
    const size_t sign = std::min(form.bytes.find('%', at), form.bytes.size());
    out.add(form, at, sign);
    if (sign == form.bytes.size()) break;
    size_t end = sign + 1;
    int digits = 6;
    if (end + 1 < form.bytes.size() && form.bytes[end] == '.' && form.bytes[end + 1] >= '0' &&
        form.bytes[end + 1] <= '9')
      digits = form.bytes[end + 1] - '0', end += 2;
    const char kind = end < form.bytes.size() ? form.bytes[end] : ' ';
    at = end + 1;
    if (kind == '%') {
      out.add("%", form.origin[sign]);
      continue;
    }
    if (used == values.size()) throw Error("not enough arguments for format string");
    const Value& v = values[used++];
    if (v.is_undefined() && kind != 's') undefined_error(v);
    if (kind == 's')
      out.add(*str(v, budget));
    else if (kind == 'r')
      add_repr(v, out, budget);
    else if ((kind == 'd' || kind == 'i') && as_number(v))
      out.add(fmt::format("{}", as_integer(v) ? *as_integer(v) : int64_t(*as_number(v))), scaffold);
    else if (kind == 'f' && as_number(v))
      out.add(fmt::format("{:.{}f}", *as_number(v), digits), scaffold);
    else
      throw Error(fmt::format("%{} of a '{}' is not supported", kind, type_name(v)));
  }
  if (used < values.size() && (several || !given.dict()))
    throw Error("not all arguments converted during string formatting");
  return out.take();
}

TextPtr format_braces(const Text& form, const Values& values, const Named& named, Budget& budget) {
  TextBuilder out(budget);
  const std::string& s = form.bytes;
  size_t next = 0;
  for (size_t at = 0; at < s.size();) {
    const size_t brace = std::min(s.find_first_of("{}", at), s.size());
    out.add(form, at, brace);
    if (brace == s.size()) break;
    if (brace + 1 < s.size() && s[brace + 1] == s[brace]) {
      out.add(form, brace, brace + 1);
      at = brace + 2;
      continue;
    }
    const size_t close = s.find('}', brace);
    if (s[brace] == '}' || close == std::string::npos) throw Error("a single brace in a format string");
    const std::string field = s.substr(brace + 1, close - brace - 1);
    at = close + 1;
    const Value* value = nullptr;
    if (field.empty() || std::ranges::all_of(field, [](char c) { return c >= '0' && c <= '9'; })) {
      const size_t i = field.empty() ? next++ : field.size() < 9 ? std::stoul(field) : values.size();
      if (i < values.size()) value = &values[i];
    } else {
      for (const auto& [name, v] : named)
        if (name == field) value = &v;
    }
    if (!value) throw Error(fmt::format("format(): no value for {{{}}}", field));
    out.add(*str(*value, budget));
  }
  return out.take();
}

}  // namespace dsengine::jinja
