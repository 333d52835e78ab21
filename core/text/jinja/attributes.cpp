// Attributes and items of values: of.name, of[key], and the methods of dicts, lists and loops.
#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/operations.h"
#include "text/jinja/print.h"
#include "text/jinja/text.h"

namespace dsengine::jinja {
namespace {

Value missing(const Value& of, const std::string& name) {
  return Undefined{
      std::make_shared<const std::string>(fmt::format("'{}' of a '{}'", name.substr(0, 60), type_name(of)))};
}

template <class F>
Value method(const std::string& name, const Value& self, F&& body) {
  return std::make_shared<const Callable>(Callable{name,
                                                   [name, body](const Values& values, const Named& named) {
                                                     Arguments arguments(name, values, named);
                                                     Value result = body(arguments);
                                                     arguments.done();
                                                     return result;
                                                   },
                                                   depth_around({self})});
}

Value dict_view(const Dict& d, const std::string& name, Budget& budget) {
  Values items;
  budget.step(int64_t(d.items.size()));
  for (const auto& [k, v] : d.items)
    items.push_back(name == "keys" ? k : name == "values" ? v : sequence(Sequence::Kind::tuple, {k, v}, budget));
  return sequence(Sequence::Kind::view, std::move(items), budget);
}

std::optional<Value> dict_method(const std::shared_ptr<const Dict>& d, const std::string& name, Budget& budget) {
  if (name == "items" || name == "keys" || name == "values")
    return method(name, d, [d, name, &budget](Arguments&) { return dict_view(*d, name, budget); });
  if (name == "get")
    return method(name, d, [d, &budget](Arguments& a) {
      const Value& key = a.need("key");
      const Value* otherwise = a.next("default");
      budget.step(int64_t(d->items.size()) / 4);
      const Value* found = d->find(key);
      return found ? *found : otherwise ? *otherwise : Value(None{});
    });
  if (name == "copy") return method(name, d, [d](Arguments&) { return Value(d); });
  static constexpr std::string_view changing[] = {"clear", "pop", "popitem", "setdefault", "update"};
  if (std::ranges::count(changing, name) > 0)
    return Undefined{
        std::make_shared<const std::string>(fmt::format("'{}', for a template can change no dict, it", name))};
  return std::nullopt;
}

std::optional<Value> list_method(const std::shared_ptr<const Sequence>& s, const std::string& name, Budget& budget) {
  if (s->kind > Sequence::Kind::tuple) return std::nullopt;
  if (name == "count" || name == "index")
    return method(name, s, [s, name, &budget](Arguments& a) -> Value {
      const Value& wanted = a.need("value");
      const auto is_wanted = [&](const Value& v) { return equal(v, wanted, budget); };
      if (name == "count") return int64_t(std::ranges::count_if(s->items, is_wanted));
      const auto found = std::ranges::find_if(s->items, is_wanted);
      if (found == s->items.end()) throw Error("the value is not in the list");
      return int64_t(found - s->items.begin());
    });
  if (s->kind == Sequence::Kind::list && name == "copy") return method(name, s, [s](Arguments&) { return Value(s); });
  static constexpr std::string_view changing[] = {"append", "clear",  "extend",  "insert",
                                                  "pop",    "remove", "reverse", "sort"};
  if (s->kind == Sequence::Kind::list && std::ranges::count(changing, name) > 0)
    return Undefined{
        std::make_shared<const std::string>(fmt::format("'{}', for a template can change no list, it", name))};
  return std::nullopt;
}

Value loop_attribute(const Value& of, const std::string& name) {
  const auto& loop = *of.as<std::shared_ptr<const Loop>>();
  const auto i = int64_t(loop->index), n = int64_t(loop->items.size());
  if (name == "index") return i + 1;
  if (name == "index0") return i;
  if (name == "revindex") return n - i;
  if (name == "revindex0") return n - i - 1;
  if (name == "first") return i == 0;
  if (name == "last") return i + 1 == n;
  if (name == "length") return n;
  if (name == "depth" || name == "depth0") return int64_t{name == "depth"};  // loops that call themselves are not read
  if (name == "previtem") return i > 0 ? loop->items[size_t(i - 1)] : missing(of, name);
  if (name == "nextitem") return i + 1 < n ? loop->items[size_t(i + 1)] : missing(of, name);
  if (name == "cycle")
    return std::make_shared<const Callable>(Callable{name,
                                                     [loop](const Values& values, const Named&) {
                                                       if (values.empty()) throw Error("no items for cycling given");
                                                       return values[loop->index % values.size()];
                                                     },
                                                     depth_around({of})});
  return missing(of, name);
}

// Methods and fields, without a dict's keys.
std::optional<Value> own_attribute(const Value& of, const std::string& name, Budget& budget) {
  if (const auto* t = of.as<TextPtr>(); t && is_text_method(name)) {
    TextPtr self = *t;
    return std::make_shared<const Callable>(
        Callable{name, [self, name, &budget](const Values& values, const Named& named) {
                   return text_method(name, self, values, named, budget);
                 }});
  }
  if (const auto* d = of.as<std::shared_ptr<const Dict>>()) return dict_method(*d, name, budget);
  if (const auto* s = of.as<std::shared_ptr<const Sequence>>()) return list_method(*s, name, budget);
  if (of.loop()) return loop_attribute(of, name);
  if (const auto* callable = of.callable(); callable && name == "name") return text(callable->name, scaffold);
  if (const Space* space = of.space())
    for (const auto& [n, value] : space->items)
      if (n == name) return value;
  return std::nullopt;
}

}  // namespace

Value attribute(const Value& of, const std::string& name, Budget& budget) {
  if (of.is_undefined()) undefined_error(of);
  if (auto own = own_attribute(of, name, budget)) return std::move(*own);
  if (const auto* d = of.dict()) {
    budget.step(int64_t(d->items.size()) / 4);
    if (const Value* found = d->find(name)) return *found;
  }
  return missing(of, name);
}

Value item(const Value& of, const Value& key, Budget& budget) {
  if (of.is_undefined()) undefined_error(of);
  if (const auto* d = of.dict()) {
    budget.step(int64_t(d->items.size()) / 4);
    if (const Value* found = d->find(key)) return *found;
  }
  if (const auto i = as_integer(key)) {
    const auto* s = of.sequence();
    if ((s && s->kind <= Sequence::Kind::tuple) || of.text()) {
      const int64_t size = length(of), at = *i < 0 ? *i + size : *i;
      if (at < 0 || at >= size) return missing(of, std::to_string(*i));
      if (s) return s->items[size_t(at)];
      budget.step(size / 64);
      const size_t from = byte_of(*of.text(), at);
      return text(cut(*of.text(), from, byte_of({of.text()->bytes.substr(from, 4), ""}, 1) + from));
    }
  }
  if (const Text* name = key.text())
    if (auto own = own_attribute(of, name->bytes, budget)) return std::move(*own);
  return missing(of, str(key, budget)->bytes);
}

}  // namespace dsengine::jinja
