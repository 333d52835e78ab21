// A chat template as it was parsed: statements and expressions, each with its line.
//
//   Template t = parse("{% for m in messages %}{{ m.content }}{% endfor %}", "chat_template.jinja");
//   t.body[0].kind == Statement::Kind::loop;
#pragma once
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/jinja/value.h"

namespace dsengine::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct Expression {
  enum class Kind : uint8_t {
    constant,     // value
    name,         // name
    list,         // items
    tuple,        // items
    dict,         // items: key, value, key, value, …
    attribute,    // items[0].name
    item,         // items[0][items[1]]
    slice,        // items[0][items[1]:items[2]:items[3]], each may be null
    call,         // items[0](items[1…], named)
    filter,       // items[0] | name(items[1…], named)
    test,         // items[0] is name(items[1…], named)
    negative,     // -items[0]
    positive,     // +items[0]
    inverse,      // not items[0]
    arithmetic,   // items[0] name items[1]
    concatenate,  // items[0] ~ items[1] ~ …
    compare,      // items[0] operators[0] items[1] operators[1] items[2] …
    both,         // items[0] and items[1] and …
    either,       // items[0] or items[1] or …
    choice        // items[0] if items[1] else items[2], which may be null
  };
  Kind kind;
  int line;
  int depth = 1;  // of the tree below, bounded by the parser
  std::string name{};
  Value value{};
  std::vector<ExpressionPtr> items{};
  std::vector<std::string> operators{};
  std::vector<std::pair<std::string, ExpressionPtr>> named{};
  ExpressionPtr more_items{}, more_named{};  // f(*more_items, **more_named)
};

struct Statement;
using Body = std::vector<Statement>;

struct Statement {
  enum class Kind : uint8_t {
    text,        // value
    print,       // expression
    loop,        // for target in expression if condition: body, else otherwise
    choice,      // if expression: body, else otherwise (an elif is a choice there)
    set,         // target = expression, or where that is null, the text of body through the filter `condition`
    macro,       // name, parameters, body
    generation,  // body
    with,        // body in a scope where parameters are set
    filter,      // body through the filter `condition`
    stop,
    next  // break, continue
  };
  Kind kind;
  int line;
  Value value{};
  std::string name{};
  ExpressionPtr expression{}, condition{}, target{};
  std::vector<std::pair<std::string, ExpressionPtr>> parameters{};  // with their defaults, null where there is none
  Body body{}, otherwise{};
};

struct Template {
  std::string where;  // what errors call it
  Body body;
};

// A source that is not UTF-8 is a UserError; a syntax error one with the line.
Template parse(std::string_view source, const std::string& where);
bool has_generation(const Body& body);  // a {% generation %} block somewhere in it

}  // namespace dsengine::jinja
