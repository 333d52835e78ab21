#include "text/jinja/operations.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "text/jinja/text.h"

namespace dsengine::jinja {

std::optional<int64_t> as_integer(const Value& value) {
  if (const auto* b = value.as<bool>()) return int64_t(*b);
  if (const auto* i = value.as<int64_t>()) return *i;
  return std::nullopt;
}
std::optional<double> as_number(const Value& value) {
  if (const auto i = as_integer(value)) return double(*i);
  if (const auto* f = value.as<double>()) return *f;
  return std::nullopt;
}

void undefined_error(const Value& value) {
  const auto& name = value.as<Undefined>()->name;
  throw Error(name ? *name + " is undefined" : "an undefined value is used");
}

namespace {

[[noreturn]] void too_large() { throw Error("an integer beyond 64 bits"); }

Value integers(const std::string& op, int64_t a, int64_t b) {
  int64_t c = 0;
  if (op == "+") return __builtin_add_overflow(a, b, &c) ? too_large(), c : c;
  if (op == "-") return __builtin_sub_overflow(a, b, &c) ? too_large(), c : c;
  if (op == "*") return __builtin_mul_overflow(a, b, &c) ? too_large(), c : c;
  if (op == "**") {
    if (b < 0) {
      if (a == 0) throw Error("zero to a negative power");
      return std::pow(double(a), double(b));
    }
    int64_t result = 1;
    for (int64_t i = 0; i < b; ++i) {
      if (a == 0 || a == 1 || a == -1) return a == -1 ? (b % 2 ? int64_t{-1} : int64_t{1}) : a;
      if (__builtin_mul_overflow(result, a, &result)) too_large();
    }
    return result;
  }
  if (b == 0) throw Error("division by zero");
  if (op == "/") return double(a) / double(b);
  if (b == -1) return op == "//" ? integers("-", 0, a) : Value(int64_t{0});
  const int64_t quotient = a / b - (a % b != 0 && (a < 0) != (b < 0));
  return op == "//" ? quotient : a - quotient * b;
}

Value reals(const std::string& op, double a, double b) {
  if (op == "+") return a + b;
  if (op == "-") return a - b;
  if (op == "*") return a * b;
  if (op == "**") return std::pow(a, b);
  if (b == 0) throw Error("division by zero");
  if (op == "/") return a / b;
  double rest = std::fmod(a, b);
  if (rest != 0 && (rest < 0) != (b < 0)) rest += b;
  return op == "%" ? rest : std::floor((a - rest) / b + 0.5);
}

Value repeated(const Value& value, int64_t times, Budget& budget) {
  times = std::max<int64_t>(times, 0);
  if (const Text* t = value.text()) {
    Text whole;
    if (t->bytes.empty()) times = 0;
    budget.allocate(
        size_t(double(t->bytes.size()) * double(times) > 1e12 ? 1e12 : double(t->bytes.size()) * double(times)));
    for (int64_t i = 0; i < times; ++i) whole.bytes += t->bytes, whole.origin += t->origin;
    return text(std::move(whole));
  }
  const auto* s = value.sequence();
  Values items;
  if (s->items.empty()) times = 0;
  for (int64_t i = 0; i < times; ++i) {
    budget.allocate(s->items.size() * sizeof(Value)), budget.step(int64_t(s->items.size()));
    items.insert(items.end(), s->items.begin(), s->items.end());
  }
  return sequence(s->kind, std::move(items), budget);
}

bool repeats(const Value& value) {
  return value.text() || (value.sequence() && value.sequence()->kind <= Sequence::Kind::tuple);
}

}  // namespace

Value arithmetic(const std::string& op, const Value& a, const Value& b, Budget& budget) {
  if (op == "%" && a.text()) return format_percent(*a.text(), b, budget);
  for (const auto* v : {&a, &b})
    if (v->is_undefined()) undefined_error(*v);
  const auto i = as_integer(a), j = as_integer(b);
  if (i && j) return integers(op, *i, *j);
  if (const auto x = as_number(a), y = as_number(b); x && y) return reals(op, *x, *y);
  if (op == "+" && a.text() && b.text()) {
    TextBuilder out(budget);
    out.add(*a.text()), out.add(*b.text());
    return out.take();
  }
  const auto *s = a.sequence(), *t = b.sequence();
  if (op == "+" && s && t && s->kind == t->kind && repeats(a)) {
    budget.allocate((s->items.size() + t->items.size()) * sizeof(Value));
    budget.step(int64_t(s->items.size() + t->items.size()));
    Values items = s->items;
    items.insert(items.end(), t->items.begin(), t->items.end());
    return sequence(s->kind, std::move(items), budget);
  }
  if (op == "*" && repeats(a) && j) return repeated(a, *j, budget);
  if (op == "*" && repeats(b) && i) return repeated(b, *i, budget);
  throw Error(fmt::format("unsupported operand types for {}: '{}' and '{}'", op, type_name(a), type_name(b)));
}

Value negative(const Value& value) {
  if (const auto i = as_integer(value)) return integers("-", 0, *i);
  if (const auto* f = value.as<double>()) return -*f;
  if (value.is_undefined()) undefined_error(value);
  throw Error(fmt::format("bad operand type for unary -: '{}'", type_name(value)));
}

bool contains(const Value& container, const Value& item, Budget& budget) {
  if (const Text* t = container.text()) {
    if (!item.text())
      throw Error(fmt::format("'in <string>' requires string as left operand, not {}", type_name(item)));
    budget.search(t->bytes.size(), item.text()->bytes.size());
    return t->bytes.find(item.text()->bytes) != std::string::npos;
  }
  if (const auto* d = container.dict()) {
    budget.step(int64_t(d->items.size()) / 4);
    return d->find(item) != nullptr;
  }
  if (const auto* s = container.sequence())
    return std::ranges::any_of(s->items, [&](const Value& v) { return equal(v, item, budget); });
  if (container.is_undefined()) return false;
  throw Error(fmt::format("argument of type '{}' is not iterable", type_name(container)));
}

bool compared(const std::string& op, const Value& a, const Value& b, Budget& budget) {
  if (op == "==") return equal(a, b, budget);
  if (op == "!=") return !equal(a, b, budget);
  if (op == "in") return contains(b, a, budget);
  if (op == "not in") return !contains(b, a, budget);
  const int c = compare(a, b, budget);
  if (c == 2) return false;
  return op == "<" ? c < 0 : op == "<=" ? c <= 0 : op == ">" ? c > 0 : c >= 0;
}

Value slice(const Value& of, const Value& from, const Value& to, const Value& step_value, Budget& budget) {
  if (of.is_undefined()) undefined_error(of);
  const auto bound = [](const Value& v) -> std::optional<int64_t> {
    if (v.is_none()) return std::nullopt;
    if (const auto i = as_integer(v)) return i;
    throw Error("slice indices must be integers or None");
  };
  const auto step = bound(step_value).value_or(1);
  if (step == 0) throw Error("slice step cannot be zero");
  const auto* text_of = of.text();
  const auto* list = of.sequence();
  if (!text_of && !(list && repeats(of))) throw Error(fmt::format("'{}' object is not sliceable", type_name(of)));
  const int64_t size = length(of);
  const auto placed = [&](std::optional<int64_t> i, int64_t otherwise) {
    if (!i) return otherwise;
    const int64_t at = *i < 0 ? (*i < -size ? -1 : *i + size) : *i;
    return step > 0 ? std::clamp<int64_t>(at, 0, size) : std::clamp<int64_t>(*i < -size ? -1 : at, -1, size - 1);
  };
  const int64_t first = placed(bound(from), step > 0 ? 0 : size - 1), last = placed(bound(to), step > 0 ? size : -1);
  if (text_of && step == 1) {
    if (first >= last) return text("", scaffold);
    budget.step(size / 64);
    const size_t begin = byte_of(*text_of, first), end = byte_of(*text_of, last);
    budget.allocate(end - begin);
    return text(cut(*text_of, begin, end));
  }
  const Values all = iterate(of, budget);
  Values items;
  for (int64_t i = first; step > 0 ? i < last : i > last;) {
    items.push_back(all[size_t(i)]);
    if (__builtin_add_overflow(i, step, &i)) break;
  }
  if (list) return sequence(list->kind, std::move(items), budget);
  TextBuilder out(budget);
  for (const auto& c : items) out.add(*c.text());
  return out.take();
}

Value call(const Value& callee, const Values& arguments, const Named& named) {
  if (callee.is_undefined()) undefined_error(callee);
  if (!callee.callable()) throw Error(fmt::format("'{}' object is not callable", type_name(callee)));
  return callee.callable()->call(arguments, named);
}

const Value* Arguments::next(const char* name) {
  if (at_ < values_.size()) return &values_[at_++];
  for (const auto& [n, value] : named_)
    if (n == name) return ++used_, &value;
  return nullptr;
}
const Value& Arguments::need(const char* name) {
  const Value* value = next(name);
  if (!value) throw Error(fmt::format("{}() needs the argument '{}'", callee_, name));
  return *value;
}
bool Arguments::flag(const char* name, bool otherwise) {
  const Value* value = next(name);
  return value ? is_true(*value) : otherwise;
}
int64_t Arguments::integer(const char* name, int64_t otherwise) {
  const Value* value = next(name);
  if (!value) return otherwise;
  if (const auto i = as_integer(*value)) return *i;
  throw Error(fmt::format("{}(): '{}' should be an integer, not '{}'", callee_, name, type_name(*value)));
}
TextPtr Arguments::text(const char* name) {
  const Value* value = next(name);
  if (!value || value->is_none()) return nullptr;
  if (const auto* t = value->as<TextPtr>()) return *t;
  throw Error(fmt::format("{}(): '{}' should be a string, not '{}'", callee_, name, type_name(*value)));
}
void Arguments::done() const {
  if (at_ < values_.size() || used_ < named_.size())
    throw Error(fmt::format("{}() got arguments it does not take", callee_));
}

}  // namespace dsengine::jinja
