// Filters of lists and dicts, and the calls of filters by name.
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "text/jinja/operations.h"
#include "text/jinja/print.h"
#include "text/jinja/text.h"

namespace dsengine::jinja {
namespace {

using Kind = Sequence::Kind;

// "a.b.0": an item of an item; of each value.
Value by_path(Value value, const Value& path, Budget& budget) {
  if (as_integer(path)) return item(value, path, budget);
  if (!path.text()) throw Error("an attribute should be a string or a number");
  const Text dot{".", {scaffold}};
  for (const auto& part : split(*path.text(), &dot, -1, false, budget)) {
    const bool number = !part.bytes.empty() && part.bytes.size() < 10 &&
                        std::ranges::all_of(part.bytes, [](char c) { return c >= '0' && c <= '9'; });
    value = item(value, number ? Value(int64_t(std::stol(part.bytes))) : text(part), budget);
  }
  return value;
}

// What items are sorted or compared by.
Values keys_of(const Values& items, const Value* path, bool case_sensitive, Budget& budget) {
  Values keys;
  const auto key = [&](const Value& v, const Value* p) {
    Value k = p ? by_path(v, *p, budget) : v;
    return !case_sensitive && k.text() ? Value(change_case(*k.text(), Case::lower, budget)) : k;
  };
  const Text comma{",", {scaffold}};
  for (const auto& v : items) {
    if (path && path->text() && path->text()->bytes.find(',') != std::string::npos) {
      Values several;
      for (const auto& part : split(*path->text(), &comma, -1, false, budget)) {
        const Value p = text(part);
        several.push_back(key(v, &p));
      }
      keys.push_back(sequence(Kind::list, std::move(several), budget));
    } else {
      keys.push_back(key(v, path));
    }
  }
  return keys;
}

const Value* given(const Value* value) { return value && !value->is_none() ? value : nullptr; }

Values ordered(const Values& items, const Values& keys, bool reversed, Budget& budget) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  // Merge by hand: a comparison that throws or has no order must not disturb the sort.
  std::vector<size_t> other(order.size());
  const auto before = [&](size_t a, size_t b) {
    const int c = compare(keys[a], keys[b], budget);
    return reversed ? c == 1 : c == -1;
  };
  for (size_t width = 1; width < order.size(); width *= 2) {
    for (size_t begin = 0; begin < order.size(); begin += 2 * width) {
      const size_t middle = std::min(begin + width, order.size()), end = std::min(begin + 2 * width, order.size());
      for (size_t i = begin, j = middle, k = begin; k < end; ++k)
        other[k] = i < middle && (j >= end || !before(order[j], order[i])) ? order[i++] : order[j++];
    }
    order.swap(other);
  }
  Values sorted;
  for (const size_t i : order) sorted.push_back(items[i]);
  return sorted;
}

Value sort(Arguments& a, Budget& budget) {
  const Values items = iterate(a.need("value"), budget);
  const bool reversed = a.flag("reverse", false), sensitive = a.flag("case_sensitive", false);
  const Value* path = given(a.next("attribute"));
  return sequence(Kind::list, ordered(items, keys_of(items, path, sensitive, budget), reversed, budget), budget);
}

Value dictsort(Arguments& a, Budget& budget) {
  const Value& value = a.need("value");
  const bool sensitive = a.flag("case_sensitive", false);
  const TextPtr by = a.text("by");
  const bool reversed = a.flag("reverse", false);
  if (value.is_undefined()) undefined_error(value);
  if (!value.dict()) throw Error(fmt::format("dictsort wants a dict, not '{}'", type_name(value)));
  if (by && by->bytes != "key" && by->bytes != "value") throw Error("dictsort: by should be \"key\" or \"value\"");
  Values items, sides;
  for (const auto& [k, v] : value.dict()->items) {
    items.push_back(sequence(Kind::tuple, {k, v}, budget));
    sides.push_back(by && by->bytes == "value" ? v : k);
  }
  return sequence(Kind::list, ordered(items, keys_of(sides, nullptr, sensitive, budget), reversed, budget), budget);
}

Value unique(Arguments& a, Budget& budget) {
  const Values items = iterate(a.need("value"), budget);
  const bool sensitive = a.flag("case_sensitive", false);
  const Values keys = keys_of(items, given(a.next("attribute")), sensitive, budget);
  Values kept, seen;
  for (size_t i = 0; i < items.size(); ++i) {
    if (keys[i].dict() || (keys[i].sequence() && keys[i].sequence()->kind == Kind::list))
      throw Error("unique: an item that is a list or a dict");
    if (std::ranges::any_of(seen, [&](const Value& k) { return equal(k, keys[i], budget); })) continue;
    kept.push_back(items[i]), seen.push_back(keys[i]);
  }
  return sequence(Kind::generator, std::move(kept), budget);
}

template <int wanted>
Value extreme(Arguments& a, Budget& budget) {
  const Values items = iterate(a.need("value"), budget);
  const bool sensitive = a.flag("case_sensitive", false);
  const Values keys = keys_of(items, given(a.next("attribute")), sensitive, budget);
  if (items.empty()) return Undefined{};
  size_t best = 0;
  for (size_t i = 1; i < items.size(); ++i)
    if (compare(keys[i], keys[best], budget) == wanted) best = i;
  return items[best];
}

Value sum(Arguments& a, Budget& budget) {
  const Values items = iterate(a.need("iterable"), budget);
  const Value* path = given(a.next("attribute"));
  const Value* start = a.next("start");
  Value total = start ? *start : Value(int64_t{0});
  if (total.text()) throw Error("sum() can't sum strings");
  for (const auto& v : items) total = arithmetic("+", total, path ? by_path(v, *path, budget) : v, budget);
  return total;
}

Value first(Arguments& a, Budget& budget) {
  const Values items = iterate(a.need("seq"), budget);
  return items.empty() ? Value(Undefined{}) : items.front();
}
Value last(Arguments& a, Budget& budget) {
  const Value& value = a.need("seq");
  if (value.sequence() && value.sequence()->kind == Kind::generator) throw Error("a generator is not reversible");
  const Values items = iterate(value, budget);
  return items.empty() ? Value(Undefined{}) : items.back();
}
Value size(Arguments& a, Budget& budget) {
  const Value& value = a.need("value");
  budget.step();
  return length(value);
}
Value list(Arguments& a, Budget& budget) { return sequence(Kind::list, iterate(a.need("value"), budget), budget); }

Value reverse(Arguments& a, Budget& budget) {
  const Value& value = a.need("value");
  if (value.text()) return slice(value, None{}, None{}, int64_t{-1}, budget);
  Values items = iterate(value, budget);
  std::ranges::reverse(items);
  return sequence(Kind::generator, std::move(items), budget);
}

Value join(Arguments& a, Budget& budget) {
  const Values items = iterate(a.need("value"), budget);
  const Value* by = a.next("d");
  const Value* path = given(a.next("attribute"));
  TextBuilder out(budget);
  const TextPtr between = by ? str(*by, budget) : nullptr;
  for (size_t i = 0; i < items.size(); ++i) {
    if (i > 0 && between) out.add(*between);
    out.add(*str(path ? by_path(items[i], *path, budget) : items[i], budget));
  }
  return out.take();
}

Value pairs(Arguments& a, Budget& budget) {
  const Value& value = a.need("value");
  Values items;
  if (!value.is_undefined() && !value.dict()) throw Error("Can only get item pairs from a mapping.");
  if (value.dict())
    for (const auto& [k, v] : value.dict()->items) items.push_back(sequence(Kind::tuple, {k, v}, budget));
  return sequence(Kind::generator, std::move(items), budget);
}

Value batch(Arguments& a, Budget& budget) {
  const Values items = iterate(a.need("value"), budget);
  const int64_t n = a.integer("linecount", 0);
  const Value* fill = given(a.next("fill_with"));
  Values batches, part;
  for (const auto& v : items) {
    if (int64_t(part.size()) == n) batches.push_back(sequence(Kind::list, std::exchange(part, {}), budget));
    part.push_back(v);
  }
  while (fill && !part.empty() && int64_t(part.size()) < n) budget.step(), budget.allocate(64), part.push_back(*fill);
  if (!part.empty()) batches.push_back(sequence(Kind::list, std::move(part), budget));
  return sequence(Kind::generator, std::move(batches), budget);
}

Value attr(Arguments& a, Budget& budget) {
  const Value& value = a.need("obj");
  const TextPtr name = str(a.need("name"), budget);
  if (value.is_undefined()) undefined_error(value);
  return value.space() || value.loop() ? attribute(value, name->bytes, budget) : Value(Undefined{});  // no dict's keys
}

Value mapped(const Values& arguments, const Named& named, Budget& budget) {
  const Values items = iterate(arguments[0], budget);
  Values made;
  if (arguments.size() == 1) {
    const Values none;
    Arguments a("map", none, named);
    const Value& path = a.need("attribute");
    const Value* otherwise = given(a.next("default"));
    a.done();
    for (const auto& v : items) {
      Value found = by_path(v, path, budget);
      if (found.is_undefined() && otherwise) found = *otherwise;
      made.push_back(std::move(found));
    }
  } else {
    if (!arguments[1].text()) throw Error("map: the filter's name should be a string");
    Values rest(arguments.begin() + 1, arguments.end());
    for (const auto& v : items) {
      rest[0] = v;
      made.push_back(filter(arguments[1].text()->bytes, rest, named, budget));
    }
  }
  return sequence(Kind::generator, std::move(made), budget);
}

Value selected(const Values& arguments, const Named& named, bool wanted, bool of_attribute, Budget& budget) {
  Values kept;
  const size_t at = of_attribute ? 2 : 1;  // of the test's name
  if (is_true(arguments[0])) {
    if (of_attribute && arguments.size() < 2) throw Error("selectattr and rejectattr want an attribute's name");
    for (const auto& v : iterate(arguments[0], budget)) {
      Values rest{of_attribute ? by_path(v, arguments[1], budget) : v};
      bool fits;
      if (arguments.size() > at) {
        if (!arguments[at].text()) throw Error("a test's name should be a string");
        rest.insert(rest.end(), arguments.begin() + int64_t(at) + 1, arguments.end());
        fits = test(arguments[at].text()->bytes, rest, named, budget);
      } else {
        fits = is_true(rest[0]);
      }
      if (fits == wanted) kept.push_back(v);
    }
  }
  return sequence(Kind::generator, std::move(kept), budget);
}

}  // namespace

Function list_filter(const std::string& name) {
  static const std::map<std::string, Function, std::less<>> table{
      {"sort", sort},      {"dictsort", dictsort}, {"unique", unique}, {"min", extreme<-1>},
      {"max", extreme<1>}, {"sum", sum},           {"first", first},   {"last", last},
      {"length", size},    {"count", size},        {"list", list},     {"reverse", reverse},
      {"join", join},      {"items", pairs},       {"batch", batch},   {"attr", attr}};
  const auto found = table.find(name);
  return found == table.end() ? nullptr : found->second;
}

Value filter(const std::string& name, const Values& arguments, const Named& named, Budget& budget) {
  budget.step();
  if (name == "map") return mapped(arguments, named, budget);
  if (name == "select" || name == "reject") return selected(arguments, named, name == "select", false, budget);
  if (name == "selectattr" || name == "rejectattr")
    return selected(arguments, named, name == "selectattr", true, budget);
  Function function = text_filter(name);
  if (!function) function = list_filter(name);
  if (!function) throw Error(fmt::format("no filter named '{}'", name.substr(0, 60)));
  Arguments a(name, arguments, named);
  Value result = function(a, budget);
  a.done();
  return result;
}

}  // namespace dsengine::jinja
