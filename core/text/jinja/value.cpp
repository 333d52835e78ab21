#include "text/jinja/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>

#include "text/jinja/text.h"
#include "text/utf8.h"

namespace dsengine::jinja {
namespace {

constexpr int deepest = 150;

int depth_of(const Value& value) {
  if (const auto* s = value.sequence()) return s->depth;
  if (const auto* d = value.dict()) return d->depth;
  if (const auto* l = value.loop()) return l->depth;
  if (const auto* c = value.callable()) return c->depth;
  return 0;
}

int above(int depth) {
  if (depth >= deepest) throw Error(fmt::format("values nested deeper than {} levels", deepest));
  return depth + 1;
}

double number(const Value& value) {
  if (const auto* b = value.as<bool>()) return *b;
  if (const auto* i = value.as<int64_t>()) return double(*i);
  return *value.as<double>();
}
std::optional<int64_t> integer(const Value& value) {
  if (const auto* b = value.as<bool>()) return int64_t(*b);
  if (const auto* i = value.as<int64_t>()) return *i;
  return std::nullopt;
}

bool equal_items(const Values& a, const Values& b, Budget& budget) {
  if (a.size() != b.size()) return false;
  for (size_t i = 0; i < a.size(); ++i)
    if (!equal(a[i], b[i], budget)) return false;
  return true;
}

template <class T>
int order(const T& a, const T& b) {
  return a < b ? -1 : b < a ? 1 : 0;
}

}  // namespace

Value text(std::string bytes, char origin) {
  const size_t size = bytes.size();
  return text(Text{std::move(bytes), std::string(size, origin)});
}
Value text(Text text) { return std::make_shared<const Text>(std::move(text)); }

int depth_around(const Values& values) {
  int depth = 0;
  for (const auto& value : values) depth = std::max(depth, depth_of(value));
  return above(depth);
}

Value sequence(Sequence::Kind kind, Values items, Budget& budget) {
  budget.allocate(sizeof(Sequence) + items.size() * sizeof(Value));
  const int depth = depth_around(items);
  return std::make_shared<const Sequence>(Sequence{kind, std::move(items), depth});
}

Value dict(std::vector<std::pair<Value, Value>> items, Budget& budget) {
  budget.allocate(sizeof(Dict) + 2 * items.size() * sizeof(Value));
  Dict made{{}, 0};
  int depth = 0;
  for (auto& [key, value] : items) {
    if (key.dict() || (key.sequence() && key.sequence()->kind == Sequence::Kind::list))
      throw Error(fmt::format("unhashable type: '{}'", type_name(key)));
    depth = std::max({depth, depth_of(key), depth_of(value)});
    budget.step(int64_t(made.items.size()) / 4);
    const Value* same = made.find(key);
    if (same)
      const_cast<Value&>(*same) = std::move(value);
    else
      made.items.emplace_back(std::move(key), std::move(value));
  }
  made.depth = above(depth);
  return std::make_shared<const Dict>(std::move(made));
}

const Value* Dict::find(std::string_view key) const {
  for (const auto& [k, v] : items)
    if (k.text() && k.text()->bytes == key) return &v;
  return nullptr;
}
const Value* Dict::find(const Value& key) const {
  if (const Text* t = key.text()) return find(t->bytes);
  Budget few{.steps = 10000};
  for (const auto& [k, v] : items)
    if (equal(k, key, few)) return &v;
  return nullptr;
}

bool is_true(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (value.is_number()) return number(value) != 0;
  if (const Text* t = value.text()) return !t->bytes.empty();
  if (const auto* s = value.sequence()) return s->kind == Sequence::Kind::generator || !s->items.empty();
  if (const auto* d = value.dict()) return !d->items.empty();
  return true;
}

bool equal(const Value& a, const Value& b, Budget& budget) {
  budget.step();
  if (a.is_number() && b.is_number()) {
    const auto i = integer(a), j = integer(b);
    return i && j ? *i == *j : number(a) == number(b);
  }
  if (a.index() != b.index()) return false;
  if (a.is_undefined() || a.is_none()) return true;
  if (const Text* t = a.text()) {
    budget.step(int64_t(t->bytes.size()) / 64);
    return t->bytes == b.text()->bytes;
  }
  if (const auto* s = a.sequence()) {
    const auto* o = b.sequence();
    if (s->kind == Sequence::Kind::generator || s->kind == Sequence::Kind::view) return s == o;
    return s->kind == o->kind && equal_items(s->items, o->items, budget);
  }
  if (const auto* d = a.dict()) {
    if (d->items.size() != b.dict()->items.size()) return false;
    return std::ranges::all_of(d->items, [&](const auto& item) {
      const Value* other = b.dict()->find(item.first);
      budget.step(int64_t(d->items.size()) / 4);
      return other && equal(item.second, *other, budget);
    });
  }
  if (a.loop()) return a.loop() == b.loop();
  if (a.callable()) return a.callable() == b.callable();
  return a.space() == b.space();
}

int compare(const Value& a, const Value& b, Budget& budget) {
  budget.step();
  if (a.is_number() && b.is_number()) {
    const auto i = integer(a), j = integer(b);
    if (i && j) return order(*i, *j);
    const double x = number(a), y = number(b);
    return std::isnan(x) || std::isnan(y) ? 2 : order(x, y);  // 2: neither below, equal nor above
  }
  if (a.text() && b.text()) {
    budget.step(int64_t(std::min(a.text()->bytes.size(), b.text()->bytes.size())) / 64);
    const int c = a.text()->bytes.compare(b.text()->bytes);  // UTF-8 sorts as its code points do
    return order(c, 0);
  }
  const auto *s = a.sequence(), *o = b.sequence();
  if (s && o && s->kind == o->kind && s->kind <= Sequence::Kind::tuple) {
    for (size_t i = 0; i < std::min(s->items.size(), o->items.size()); ++i)
      if (!equal(s->items[i], o->items[i], budget)) return compare(s->items[i], o->items[i], budget);
    return order(s->items.size(), o->items.size());
  }
  if (a.is_undefined() || b.is_undefined()) throw Error("an undefined value cannot be compared");
  throw Error(fmt::format("'{}' and '{}' cannot be compared", type_name(a), type_name(b)));
}

const char* type_name(const Value& value) {
  static constexpr const char* names[] = {"undefined", "NoneType", "bool",        "int",      "float",    "str",
                                          "list",      "dict",     "LoopContext", "function", "Namespace"};
  if (const auto* s = value.sequence()) {
    if (s->kind == Sequence::Kind::tuple) return "tuple";
    if (s->kind == Sequence::Kind::generator) return "generator";
    if (s->kind == Sequence::Kind::view) return "dict view";
  }
  return names[value.index()];
}

Values iterate(const Value& value, Budget& budget) {
  if (const auto* s = value.sequence()) {
    budget.step(int64_t(s->items.size()));
    budget.allocate(s->items.size() * sizeof(Value));
    return s->items;
  }
  Values items;
  if (const auto* d = value.dict()) {
    budget.allocate(d->items.size() * sizeof(Value));
    for (const auto& [k, v] : d->items) items.push_back(k);
    return items;
  }
  if (const Text* t = value.text()) {
    budget.step(int64_t(t->bytes.size()));
    budget.allocate(t->bytes.size() * 128);
    for (size_t at = 0, next; at < t->bytes.size(); at = next) {
      next = at + char_bytes(t->bytes, at);
      items.push_back(text(cut(*t, at, next)));
    }
    return items;
  }
  if (value.is_undefined()) return items;
  throw Error(fmt::format("'{}' object is not iterable", type_name(value)));
}

int64_t length(const Value& value) {
  if (const Text* t = value.text()) return characters(*t);
  if (const auto* s = value.sequence(); s && s->kind != Sequence::Kind::generator) return int64_t(s->items.size());
  if (const auto* d = value.dict()) return int64_t(d->items.size());
  if (const auto* l = value.loop()) return int64_t(l->items.size());
  if (value.is_undefined()) return 0;
  throw Error(fmt::format("object of type '{}' has no len()", type_name(value)));
}

}  // namespace dsengine::jinja
