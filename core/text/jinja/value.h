// The values of a chat template, with Python's semantics: what is true, what equals what, what comes before what.
//
//   Budget budget;
//   Value list = sequence(Sequence::Kind::list, {text("a", scaffold), Value(int64_t{2})}, budget);
//   for (const Value& item : iterate(list, budget)) …
//   length(list), is_true(list);                             // 2, true
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "text/jinja/budget.h"
#include "text/jinja/origin.h"

namespace dsengine::jinja {

struct Value;
struct Sequence;
struct Dict;
struct Loop;
struct Space;     // a namespace
struct Callable;  // a macro, a bound method, a global function
struct Undefined {
  std::shared_ptr<const std::string> name;  // may be null
};
struct None {};

struct Value
    : std::variant<Undefined, None, bool, int64_t, double, TextPtr, std::shared_ptr<const Sequence>,
                   std::shared_ptr<const Dict>, std::shared_ptr<const Loop>, std::shared_ptr<const Callable>, Space*> {
  using variant::variant;
  template <class T>
  const T* as() const {
    return std::get_if<T>(this);
  }
  const Text* text() const { return as<TextPtr>() ? as<TextPtr>()->get() : nullptr; }
  const Sequence* sequence() const { return held<Sequence>(); }
  const Dict* dict() const { return held<Dict>(); }
  const Loop* loop() const { return held<Loop>(); }
  const Callable* callable() const { return held<Callable>(); }
  Space* space() const { return as<Space*>() ? *as<Space*>() : nullptr; }
  bool is_undefined() const { return index() == 0; }
  bool is_none() const { return index() == 1; }
  bool is_number() const { return as<bool>() || as<int64_t>() || as<double>(); }

 private:
  template <class T>
  const T* held() const {
    const auto* p = as<std::shared_ptr<const T>>();
    return p ? p->get() : nullptr;
  }
};

using Values = std::vector<Value>;
using Named = std::vector<std::pair<std::string, Value>>;

struct Sequence {
  // generator: what map, select, … give: no length, no places; view: items(), keys(), values().
  enum class Kind : uint8_t { list, tuple, generator, view } kind;
  Values items;
  int depth;
};
struct Dict {
  std::vector<std::pair<Value, Value>> items;
  int depth;
  const Value* find(const Value& key) const;
  const Value* find(std::string_view key) const;
};
struct Space {
  Named items;
};
struct Loop {
  Values items;
  int depth = 1;
  size_t index = 0;  // of the turn that runs
};
struct Callable {
  std::string name;
  std::function<Value(const Values&, const Named&)> call;
  int depth = 1;  // of what it holds
};

// Makers. What holds values within values deeper than a bound is an Error: freeing them takes stack.
int depth_around(const Values& values);
Value text(std::string bytes, char origin);
Value text(Text text);
Value sequence(Sequence::Kind kind, Values items, Budget& budget);
Value dict(std::vector<std::pair<Value, Value>> items, Budget& budget);  // of equal keys the last counts

bool is_true(const Value& value);
bool equal(const Value& a, const Value& b, Budget& budget);
int compare(const Value& a, const Value& b, Budget& budget);  // Error where Python has no order
const char* type_name(const Value& value);                    // "str", "list", …

// Iterates as a for loop does; Error where it cannot.
Values iterate(const Value& value, Budget& budget);
int64_t length(const Value& value);

}  // namespace dsengine::jinja
