// Tests: "x is defined".
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "text/jinja/operations.h"
#include "text/jinja/print.h"

namespace dsengine::jinja {
namespace {

using Check = bool (*)(const Value&, Budget&);

const std::map<std::string, Check, std::less<>>& checks() {
  static const std::map<std::string, Check, std::less<>> table{
      {"defined", [](const Value& v, Budget&) { return !v.is_undefined(); }},
      {"undefined", [](const Value& v, Budget&) { return v.is_undefined(); }},
      {"none", [](const Value& v, Budget&) { return v.is_none(); }},
      {"boolean", [](const Value& v, Budget&) { return v.as<bool>() != nullptr; }},
      {"true", [](const Value& v, Budget&) { return v.as<bool>() && *v.as<bool>(); }},
      {"false", [](const Value& v, Budget&) { return v.as<bool>() && !*v.as<bool>(); }},
      {"integer", [](const Value& v, Budget&) { return v.as<int64_t>() != nullptr; }},
      {"float", [](const Value& v, Budget&) { return v.as<double>() != nullptr; }},
      {"number", [](const Value& v, Budget&) { return v.is_number(); }},
      {"string", [](const Value& v, Budget&) { return v.text() != nullptr; }},
      {"mapping", [](const Value& v, Budget&) { return v.dict() != nullptr; }},
      {"callable", [](const Value& v, Budget&) { return v.callable() != nullptr || v.is_undefined(); }},
      {"escaped", [](const Value&, Budget&) { return false; }},
      {"sequence",
       [](const Value& v, Budget&) {
         const auto* s = v.sequence();
         return v.text() || v.dict() || v.is_undefined() || (s && s->kind <= Sequence::Kind::tuple);
       }},
      {"iterable",
       [](const Value& v, Budget&) { return v.text() || v.dict() || v.sequence() || v.is_undefined() || v.loop(); }},
      {"odd", [](const Value& v, Budget& b) { return is_true(arithmetic("%", v, int64_t{2}, b)); }},
      {"even", [](const Value& v, Budget& b) { return !is_true(arithmetic("%", v, int64_t{2}, b)); }},
      {"lower",
       [](const Value& v, Budget& b) {
         const Values none;
         return is_true(text_method("islower", str(v, b), none, {}, b));
       }},
      {"upper", [](const Value& v, Budget& b) {
         const Values none;
         return is_true(text_method("isupper", str(v, b), none, {}, b));
       }}};
  return table;
}

const std::map<std::string, const char*, std::less<>>& comparisons() {
  static const std::map<std::string, const char*, std::less<>> table{
      {"eq", "=="},         {"equalto", "=="}, {"==", "=="}, {"ne", "!="}, {"!=", "!="}, {"lt", "<"},
      {"lessthan", "<"},    {"<", "<"},        {"le", "<="}, {"<=", "<="}, {"gt", ">"},  {">", ">"},
      {"greaterthan", ">"}, {"ge", ">="},      {">=", ">="}, {"in", "in"}};
  return table;
}

}  // namespace

bool test(const std::string& name, const Values& arguments, const Named& named, Budget& budget) {
  budget.step();
  Arguments a(name, arguments, named);
  const Value& value = a.need("value");
  bool result = false;
  if (const auto check = checks().find(name); check != checks().end()) {
    result = check->second(value, budget);
  } else if (const auto comparison = comparisons().find(name); comparison != comparisons().end()) {
    result = compared(comparison->second, value, a.need(name == "in" ? "seq" : "other"), budget);
  } else if (name == "divisibleby") {
    result = !is_true(arithmetic("%", value, a.need("num"), budget));
  } else if (name == "sameas") {
    const Value& other = a.need("other");
    result = value.index() == other.index() && equal(value, other, budget);
  } else if (name == "filter") {
    result = value.text() && (text_filter(value.text()->bytes) || list_filter(value.text()->bytes));
  } else if (name == "test") {
    result = value.text() && (checks().contains(value.text()->bytes) || comparisons().contains(value.text()->bytes));
  } else {
    throw Error(fmt::format("no test named '{}'", name.substr(0, 60)));
  }
  a.done();
  return result;
}

}  // namespace dsengine::jinja
