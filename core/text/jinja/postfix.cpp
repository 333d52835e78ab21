// What follows an expression: .name, [item], (arguments), | filter, is test.
#include <fmt/format.h>

#include <algorithm>

#include "text/jinja/parser.h"

namespace dsengine::jinja {

ExpressionParser::Node ExpressionParser::postfix(Node node) {
  for (;;) {
    if (is_symbol(".") || is_symbol("["))
      node = subscript(std::move(node));
    else if (is_symbol("("))
      node = called(Kind::call, std::move(node), "", current().line);
    else
      return node;
  }
}

ExpressionParser::Node ExpressionParser::filters_and_tests(Node node) {
  for (;;) {
    if (is_symbol("|"))
      node = filters_of(std::move(node), false);
    else if (is_name("is"))
      node = test(std::move(node));
    else if (is_symbol("("))
      node = called(Kind::call, std::move(node), "", current().line);
    else
      return node;
  }
}

// The one argument of a node becomes part of another.
ExpressionParser::Node ExpressionParser::subscript(Node node) {
  std::vector<Node> items;
  items.push_back(std::move(node));
  if (skip_symbol(".")) {
    if (current().kind == Token::Kind::integer) {
      items.push_back(primary());
      return make(Kind::item, std::move(items));
    }
    if (current().kind != Token::Kind::name)
      fail(fmt::format("expected a name or a number after '.', not {}", shown()));
    std::string name = take().value;
    return make(Kind::attribute, std::move(items), std::move(name));
  }
  expect_symbol("[");
  if (is_symbol("]")) fail("expected an expression between [ and ]");
  Node found = subscribed(std::move(items[0]));
  if (is_symbol(",")) fail("several places in one [ ] are not supported");
  expect_symbol("]");
  return found;
}

ExpressionParser::Node ExpressionParser::subscribed(Node node) {
  std::vector<Node> items;
  items.push_back(std::move(node));
  const auto part = [&]() -> Node {
    return is_symbol(":") || is_symbol("]") || is_symbol(",") ? nullptr : expression();
  };
  items.push_back(part());
  if (!skip_symbol(":")) return make(Kind::item, std::move(items));
  items.push_back(part());
  items.push_back(skip_symbol(":") ? part() : nullptr);
  return make(Kind::slice, std::move(items));
}

void ExpressionParser::arguments(std::vector<Node>& items, Expression& to) {
  comma_separated("(", ")", [&] {
    const auto wrong_if = [&](bool wrong) {
      if (wrong) fail("arguments in the wrong order");
    };
    if (skip_symbol("*")) {
      wrong_if(to.more_items || to.more_named);
      to.more_items = expression();
    } else if (skip_symbol("**")) {
      wrong_if(to.more_named != nullptr);
      to.more_named = expression();
    } else if (current().kind == Token::Kind::name && following().kind == Token::Kind::symbol &&
               following().value == "=") {
      wrong_if(to.more_named != nullptr);
      std::string name = take().value;
      take();
      for (const auto& [other, value] : to.named)
        if (other == name) fail(fmt::format("the argument {} is given twice", name));
      to.named.emplace_back(std::move(name), expression());
    } else {
      wrong_if(to.more_items || to.more_named || !to.named.empty());
      items.push_back(expression());
    }
  });
}

ExpressionParser::Node ExpressionParser::called(Kind kind, Node node, std::string name, int line) {
  std::vector<Node> items;
  items.push_back(std::move(node));
  Expression rest{.kind = kind, .line = line};
  if (is_symbol("(")) arguments(items, rest);
  int depth = 0;
  for (const auto& [n, value] : rest.named) depth = std::max(depth, value->depth);
  for (const auto* more : {rest.more_items.get(), rest.more_named.get()})
    depth = std::max(depth, more ? more->depth : 0);
  Node made = make(kind, std::move(items), std::move(name));
  made->line = line;
  made->depth = std::max(made->depth, depth + 1);
  made->named = std::move(rest.named);
  made->more_items = std::move(rest.more_items), made->more_named = std::move(rest.more_named);
  return made;
}

ExpressionParser::Node ExpressionParser::filters_of(Node node, bool first_without_bar) {
  while (first_without_bar || skip_symbol("|")) {
    first_without_bar = false;
    const int line = current().line;
    std::string name = expect_any_name();
    node = called(Kind::filter, std::move(node), std::move(name), line);
  }
  return node;
}

ExpressionParser::Node ExpressionParser::test(Node node) {
  const int line = take().line;
  const bool negated = skip_name("not");
  std::string name = expect_any_name();
  Node made;
  static constexpr std::string_view ends[] = {"else", "or", "and"};
  const auto kind = current().kind;
  const bool begins = kind == Token::Kind::string || kind == Token::Kind::integer || kind == Token::Kind::real ||
                      is_symbol("[") || is_symbol("{") ||
                      (kind == Token::Kind::name && std::ranges::count(ends, current().value) == 0);
  if (is_symbol("(") || !begins) {
    made = called(Kind::test, std::move(node), std::move(name), line);
  } else {
    if (is_name("is")) fail("tests with 'is' cannot be chained");
    std::vector<Node> items;
    items.push_back(std::move(node));
    items.push_back(postfix(primary()));
    made = make(Kind::test, std::move(items), std::move(name));
    made->line = line;
  }
  if (!negated) return made;
  std::vector<Node> items;
  items.push_back(std::move(made));
  return make(Kind::inverse, std::move(items));
}

}  // namespace dsengine::jinja
