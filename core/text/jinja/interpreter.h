// Runs a parsed chat template: scopes, statements and expressions. Behind jinja::render.
//
//   Interpreter interpreter(globals);
//   interpreter.run(parsed.body);
//   Text text = interpreter.take();
#pragma once
#include <deque>

#include "text/jinja/ast.h"
#include "text/jinja/operations.h"
#include "text/jinja/text.h"

namespace dsengine::jinja {

class Interpreter {
 public:
  // variables: what the template finds beside what it sets.
  explicit Interpreter(const Named& variables) : variables_(variables) { out_ = &whole_; }
  Interpreter(const Interpreter&) = delete;

  Budget& budget() { return budget_; }
  int line() const { return line_; }  // where it is
  Space* new_space();                 // lives as long as the interpreter
  void run(const Body& body);
  Text take() { return whole_.take_text(); }

 private:
  struct Scope {
    Named names;
    Scope* parent;
    std::shared_ptr<Loop> loop{};
  };
  enum class Flow { on, stop, next };
  // Templates within each other, macros' calls among them, are bounded: the stack is.
  struct Deeper {
    explicit Deeper(Interpreter& interpreter) : in(interpreter) {
      if (++in.depth_ <= 1000) return;
      --in.depth_;
      throw Error("the template's macros call each other too deeply");
    }
    ~Deeper() { --in.depth_; }
    Interpreter& in;
  };

  Scope* new_scope(Scope* parent);
  void set(Scope* scope, const std::string& name, Value value);
  Value look_up(Scope* scope, const std::string& name) const;
  void assign(Scope* scope, const Expression& target, Value value);

  Flow run(const Body& body, Scope* scope);
  Flow run(const Statement& statement, Scope* scope);
  Flow run_loop(const Statement& statement, Scope* scope);
  void run_set(const Statement& statement, Scope* scope);
  Value macro(const Statement& statement, Scope* scope);
  Value call_macro(const Statement& statement, Scope* scope, const Values& values, const Named& named);
  template <class F>
  TextPtr captured(F&& body);

  Value evaluate(const Expression& e, Scope* scope);
  Value evaluate_deep(const Expression& e, Scope* scope);
  Value evaluate_call(const Expression& e, Scope* scope);
  Value evaluate_compare(const Expression& e, Scope* scope);
  Value evaluate_slice(const Expression& e, Scope* scope);
  Value evaluate_dict(const Expression& e, Scope* scope);
  Value through_filters(const Expression& e, const Value& text, Scope* scope);
  Values evaluate_all(const Expression& e, size_t from, Scope* scope);
  // The arguments after items[0].
  std::pair<Values, Named> arguments_of(const Expression& e, Scope* scope);

  const Named& variables_;
  Budget budget_;
  std::deque<Scope> scopes_;
  std::deque<Space> spaces_;
  TextBuilder whole_{budget_};
  TextBuilder* out_;
  int line_ = 1, depth_ = 0;
};

}  // namespace dsengine::jinja
