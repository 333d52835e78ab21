// What expressions of a chat template do with values: operators, attributes, methods, filters and tests, as Python and
// Jinja (in transformers' sandbox: nothing can be changed but a namespace) do them. Errors are an Error.
//
//   Value sum = arithmetic("+", a, b, budget);
//   Value name = attribute(message, "role", budget);          // undefined where there is none
//   Value trimmed = filter("trim", {name}, {}, budget);
#pragma once
#include <optional>

#include "text/jinja/value.h"

namespace dsengine::jinja {

Value arithmetic(const std::string& op, const Value& a, const Value& b, Budget& budget);
Value negative(const Value& value);
bool contains(const Value& container, const Value& item, Budget& budget);
bool compared(const std::string& op, const Value& a, const Value& b, Budget& budget);  // "==", "in", …
Value slice(const Value& of, const Value& from, const Value& to, const Value& step, Budget& budget);

Value attribute(const Value& of, const std::string& name, Budget& budget);  // of.name
Value item(const Value& of, const Value& key, Budget& budget);              // of[key]
Value call(const Value& callee, const Values& arguments, const Named& named);
[[noreturn]] void undefined_error(const Value& undefined);

// arguments[0] is what they are applied to.
Value filter(const std::string& name, const Values& arguments, const Named& named, Budget& budget);
bool test(const std::string& name, const Values& arguments, const Named& named, Budget& budget);

// For those who write functions: arguments by place or by name, each taken once.
class Arguments {
 public:
  Arguments(std::string callee, const Values& values, const Named& named)
      : callee_(std::move(callee)), values_(values), named_(named) {}
  const Value* next(const char* name);  // null: not given
  const Value& need(const char* name);
  bool flag(const char* name, bool otherwise);
  int64_t integer(const char* name, int64_t otherwise);
  // A text; null where it is not given, or None.
  TextPtr text(const char* name);
  size_t left() const { return values_.size() - at_; }
  void done() const;  // Error where some are left

 private:
  std::string callee_;
  const Values& values_;
  const Named& named_;
  size_t at_ = 0, used_ = 0;
};

// Tables of functions, each in a file of its own; null: there is none of the name.
using Function = Value (*)(Arguments&, Budget&);
Function text_filter(const std::string& name);
Function list_filter(const std::string& name);
Value text_method(const std::string& name, const TextPtr& text, const Values& values, const Named& named,
                  Budget& budget);
bool is_text_method(const std::string& name);
// "%s" % values, "{}".format(values)
TextPtr format_percent(const Text& form, const Value& values, Budget& budget);
TextPtr format_braces(const Text& form, const Values& values, const Named& named, Budget& budget);

std::optional<int64_t> as_integer(const Value& value);  // of an int or a bool
std::optional<double> as_number(const Value& value);

}  // namespace dsengine::jinja
