#include "text/jinja/interpreter.h"

#include <fmt/format.h>

#include "text/jinja/print.h"

namespace dsengine::jinja {

Space* Interpreter::new_space() {
  budget_.allocate(sizeof(Space));
  return &spaces_.emplace_back();
}

Interpreter::Scope* Interpreter::new_scope(Scope* parent) {
  budget_.allocate(sizeof(Scope));
  scopes_.push_back({{}, parent});
  return &scopes_.back();
}

void Interpreter::set(Scope* scope, const std::string& name, Value value) {
  for (auto& [n, v] : scope->names)
    if (n == name) {
      v = std::move(value);
      return;
    }
  budget_.allocate(sizeof(Named::value_type));
  scope->names.emplace_back(name, std::move(value));
}

Value Interpreter::look_up(Scope* scope, const std::string& name) const {
  for (; scope; scope = scope->parent) {
    if (scope->loop && name == "loop") return std::shared_ptr<const Loop>(scope->loop);
    for (const auto& [n, v] : scope->names)
      if (n == name) return v;
  }
  for (const auto& [n, v] : variables_)
    if (n == name) return v;
  return Undefined{std::make_shared<const std::string>(fmt::format("'{}'", name))};
}

void Interpreter::assign(Scope* scope, const Expression& target, Value value) {
  if (target.kind == Expression::Kind::name) return set(scope, target.name, std::move(value));
  if (target.kind == Expression::Kind::attribute) {
    Space* space = look_up(scope, target.items[0]->name).space();
    if (!space) throw Error("cannot assign attribute on non-namespace object");
    if (target.name.starts_with('_')) throw Error("a namespace's names cannot begin with an underscore");
    for (auto& [n, v] : space->items)
      if (n == target.name) {
        v = std::move(value);
        return;
      }
    budget_.allocate(sizeof(Named::value_type));
    space->items.emplace_back(target.name, std::move(value));
    return;
  }
  if (value.is_undefined() && !target.items.empty()) undefined_error(value);
  Values parts = iterate(value, budget_);
  if (parts.size() != target.items.size())
    throw Error(fmt::format("{} values for {} names", parts.size(), target.items.size()));
  for (size_t i = 0; i < parts.size(); ++i) assign(scope, *target.items[i], std::move(parts[i]));
}

template <class F>
TextPtr Interpreter::captured(F&& body) {
  TextBuilder part(budget_);
  TextBuilder* const outer = std::exchange(out_, &part);
  try {
    body();
  } catch (...) {
    out_ = outer;
    throw;
  }
  out_ = outer;
  return part.take();
}

void Interpreter::run(const Body& body) { run(body, new_scope(nullptr)); }

Interpreter::Flow Interpreter::run(const Body& body, Scope* scope) {
  for (const auto& statement : body)
    if (const Flow flow = run(statement, scope); flow != Flow::on) return flow;
  return Flow::on;
}

Interpreter::Flow Interpreter::run(const Statement& s, Scope* scope) {
  using Kind = Statement::Kind;
  const Deeper deeper(*this);
  budget_.step();
  line_ = s.line;
  switch (s.kind) {
    case Kind::text:
      out_->add(*s.value.text());
      return Flow::on;
    case Kind::print:
      out_->add(*str(evaluate(*s.expression, scope), budget_));
      return Flow::on;
    case Kind::choice:
      return run(is_true(evaluate(*s.expression, scope)) ? s.body : s.otherwise, scope);
    case Kind::loop:
      return run_loop(s, scope);
    case Kind::set:
      run_set(s, scope);
      return Flow::on;
    case Kind::macro:
      set(scope, s.name, macro(s, scope));
      return Flow::on;
    case Kind::generation: {
      const size_t from = out_->size();
      run(s.body, new_scope(scope));
      out_->mark(from, generated);
      return Flow::on;
    }
    case Kind::with: {
      Scope* inner = new_scope(scope);
      for (const auto& [name, value] : s.parameters) set(inner, name, evaluate(*value, scope));
      return run(s.body, inner);
    }
    case Kind::filter: {
      Flow flow = Flow::on;
      const TextPtr body = captured([&] { flow = run(s.body, new_scope(scope)); });
      out_->add(*str(through_filters(*s.condition, body, scope), budget_));
      return flow;
    }
    case Kind::stop:
      return Flow::stop;
    case Kind::next:
      return Flow::next;
  }
  return Flow::on;
}

Interpreter::Flow Interpreter::run_loop(const Statement& s, Scope* scope) {
  Values items = iterate(evaluate(*s.expression, scope), budget_);
  if (s.condition) {
    Values kept;
    for (auto& v : items) {
      Scope* inner = new_scope(scope);
      assign(inner, *s.target, v);
      if (is_true(evaluate(*s.condition, inner))) kept.push_back(std::move(v));
    }
    items = std::move(kept);
  }
  if (items.empty()) return run(s.otherwise, new_scope(scope));
  const auto loop = std::make_shared<Loop>(Loop{{}, depth_around(items)});
  loop->items = std::move(items);
  for (; loop->index < loop->items.size(); ++loop->index) {
    Scope* inner = new_scope(scope);
    inner->loop = loop;
    assign(inner, *s.target, loop->items[loop->index]);
    if (run(s.body, inner) == Flow::stop) break;
  }
  return Flow::on;
}

void Interpreter::run_set(const Statement& s, Scope* scope) {
  if (s.expression) return assign(scope, *s.target, evaluate(*s.expression, scope));
  Value body = captured([&] { run(s.body, new_scope(scope)); });
  if (s.condition) body = through_filters(*s.condition, body, scope);
  assign(scope, *s.target, std::move(body));
}

Value Interpreter::macro(const Statement& s, Scope* scope) {
  return std::make_shared<const Callable>(Callable{s.name, [this, &s, scope](const Values& values, const Named& named) {
                                                     return call_macro(s, scope, values, named);
                                                   }});
}

Value Interpreter::call_macro(const Statement& s, Scope* scope, const Values& values, const Named& named) {
  const Deeper deeper(*this);
  if (values.size() > s.parameters.size())
    throw Error(fmt::format("macro '{}' takes not more than {} arguments", s.name, s.parameters.size()));
  Scope* inner = new_scope(scope);
  size_t used = 0;
  for (size_t i = 0; i < s.parameters.size(); ++i) {
    const auto& [name, otherwise] = s.parameters[i];
    const Value* given = i < values.size() ? &values[i] : nullptr;
    for (const auto& [n, v] : named)
      if (n == name) {
        if (given) throw Error(fmt::format("macro '{}' got two values for '{}'", s.name, name));
        given = &v, ++used;
      }
    set(inner, name,
        given       ? *given
        : otherwise ? evaluate(*otherwise, inner)
                    : Value(Undefined{std::make_shared<const std::string>(fmt::format("'{}'", name))}));
  }
  if (used < named.size()) throw Error(fmt::format("macro '{}' takes no argument named as one that it got", s.name));
  const int line = line_;
  Value made = captured([&] { run(s.body, inner); });
  line_ = line;
  return made;
}

}  // namespace dsengine::jinja
