// The interpreter's expressions.
#include <fmt/format.h>

#include "text/jinja/interpreter.h"
#include "text/jinja/print.h"

namespace dsengine::jinja {

using Kind = Expression::Kind;

Value Interpreter::evaluate(const Expression& e, Scope* scope) {
  budget_.step();
  line_ = e.line;
  if (e.kind == Kind::constant) return e.value;
  if (e.kind == Kind::name) return look_up(scope, e.name);
  const Deeper deeper(*this);
  return evaluate_deep(e, scope);
}

Value Interpreter::evaluate_deep(const Expression& e, Scope* scope) {
  const auto part = [&](size_t i) { return evaluate(*e.items[i], scope); };
  switch (e.kind) {
    case Kind::constant:
    case Kind::name:
      break;
    case Kind::list:
      return sequence(Sequence::Kind::list, evaluate_all(e, 0, scope), budget_);
    case Kind::tuple:
      return sequence(Sequence::Kind::tuple, evaluate_all(e, 0, scope), budget_);
    case Kind::dict:
      return evaluate_dict(e, scope);
    case Kind::attribute:
      return attribute(part(0), e.name, budget_);
    case Kind::item: {
      const Value of = part(0);
      return item(of, part(1), budget_);
    }
    case Kind::slice:
      return evaluate_slice(e, scope);
    case Kind::call:
    case Kind::filter:
    case Kind::test:
      return evaluate_call(e, scope);
    case Kind::negative:
      return negative(part(0));
    case Kind::positive:
      return negative(negative(part(0)));
    case Kind::inverse:
      return !is_true(part(0));
    case Kind::arithmetic: {
      const Value left = part(0);
      return arithmetic(e.name, left, part(1), budget_);
    }
    case Kind::concatenate: {
      TextBuilder out(budget_);
      for (size_t i = 0; i < e.items.size(); ++i) out.add(*str(part(i), budget_));
      return out.take();
    }
    case Kind::compare:
      return evaluate_compare(e, scope);
    case Kind::both:
    case Kind::either: {
      for (size_t i = 0; i + 1 < e.items.size(); ++i)
        if (Value v = part(i); is_true(v) == (e.kind == Kind::either)) return v;
      return part(e.items.size() - 1);
    }
    case Kind::choice:
      if (is_true(part(1))) return part(0);
      return e.items[2] ? part(2) : Value(Undefined{});
  }
  return Undefined{};
}

Values Interpreter::evaluate_all(const Expression& e, size_t from, Scope* scope) {
  Values values;
  for (size_t i = from; i < e.items.size(); ++i) values.push_back(evaluate(*e.items[i], scope));
  return values;
}

Value Interpreter::evaluate_dict(const Expression& e, Scope* scope) {
  std::vector<std::pair<Value, Value>> items;
  for (size_t i = 0; i + 1 < e.items.size(); i += 2) {
    Value key = evaluate(*e.items[i], scope);
    items.emplace_back(std::move(key), evaluate(*e.items[i + 1], scope));
  }
  return dict(std::move(items), budget_);
}

Value Interpreter::evaluate_slice(const Expression& e, Scope* scope) {
  const auto bound = [&](size_t i) { return e.items[i] ? evaluate(*e.items[i], scope) : Value(None{}); };
  const Value of = evaluate(*e.items[0], scope), from = bound(1), to = bound(2);
  return slice(of, from, to, bound(3), budget_);
}

Value Interpreter::evaluate_compare(const Expression& e, Scope* scope) {
  Value left = evaluate(*e.items[0], scope);
  for (size_t i = 0; i < e.operators.size(); ++i) {
    Value right = evaluate(*e.items[i + 1], scope);
    if (!compared(e.operators[i], left, right, budget_)) return false;
    left = std::move(right);
  }
  return true;
}

std::pair<Values, Named> Interpreter::arguments_of(const Expression& e, Scope* scope) {
  Values values = evaluate_all(e, 1, scope);
  Named named;
  for (const auto& [name, value] : e.named) named.emplace_back(name, evaluate(*value, scope));
  if (e.more_items)
    for (auto& v : iterate(evaluate(*e.more_items, scope), budget_)) values.push_back(std::move(v));
  if (e.more_named) {
    const Value more = evaluate(*e.more_named, scope);
    if (!more.dict()) throw Error("what follows ** should be a dict");
    for (const auto& [key, value] : more.dict()->items) {
      if (!key.text()) throw Error("keywords must be strings");
      for (const auto& [name, v] : named)
        if (name == key.text()->bytes) throw Error(fmt::format("two values for the argument '{}'", name));
      named.emplace_back(key.text()->bytes, value);
    }
  }
  return {std::move(values), std::move(named)};
}

Value Interpreter::evaluate_call(const Expression& e, Scope* scope) {
  const Value first = evaluate(*e.items[0], scope);
  auto [values, named] = arguments_of(e, scope);
  line_ = e.line;
  if (e.kind == Kind::call) return call(first, values, named);
  values.insert(values.begin(), first);
  if (e.kind == Kind::test) return test(e.name, values, named, budget_);
  return filter(e.name, values, named, budget_);
}

// A block's filters: a chain whose innermost value stands for the block's text.
Value Interpreter::through_filters(const Expression& e, const Value& text, Scope* scope) {
  if (e.kind == Kind::constant) return text;
  const Deeper deeper(*this);
  auto [values, named] = arguments_of(e, scope);
  values.insert(values.begin(), through_filters(*e.items[0], text, scope));
  return filter(e.name, values, named, budget_);
}

}  // namespace dsengine::jinja
