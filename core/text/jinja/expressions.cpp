#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "text/jinja/parser.h"

namespace dsengine::jinja {

namespace {
constexpr int deepest = 200;  // of nested brackets and blocks; and of trees, which "a + b + c …" makes deep too
}  // namespace

void ExpressionParser::fail(const std::string& what) const { throw SyntaxError{what, current().line}; }

std::string ExpressionParser::shown() const {
  return current().kind == Token::Kind::source_end ? "the end of the template"
         : current().kind == Token::Kind::text     ? "text"
                                                   : fmt::format("'{}'", current().value.substr(0, 40));
}

void ExpressionParser::expect_symbol(std::string_view s) {
  if (!skip_symbol(s)) fail(fmt::format("expected '{}' before {}", s, shown()));
}
void ExpressionParser::expect_name(std::string_view s) {
  if (!skip_name(s)) fail(fmt::format("expected '{}' before {}", s, shown()));
}
std::string ExpressionParser::expect_any_name() {
  if (current().kind != Token::Kind::name) fail(fmt::format("expected a name, not {}", shown()));
  return take().value;
}

ExpressionParser::Deeper::Deeper(ExpressionParser& parser) : parser_(parser) {
  if (++parser.nesting_ > deepest) {
    --parser.nesting_;
    parser.fail(fmt::format("nested deeper than {} levels", deepest));
  }
}

ExpressionParser::Node ExpressionParser::make(Kind kind, std::vector<Node> items, std::string name) {
  auto node = std::make_unique<Expression>(Expression{.kind = kind, .line = current().line, .name = std::move(name)});
  for (auto& item : items) {
    if (item) {
      node->line = std::min(node->line, item->line);
      node->depth = std::max(node->depth, item->depth + 1);
    }
    node->items.push_back(std::move(item));
  }
  if (node->depth > 2 * deepest) fail(fmt::format("an expression of more than {} parts in a row", 2 * deepest));
  return node;
}

namespace {
template <class... Nodes>
std::vector<std::unique_ptr<Expression>> nodes(Nodes... given) {
  std::vector<std::unique_ptr<Expression>> list;
  (list.push_back(std::move(given)), ...);
  return list;
}
}  // namespace

ExpressionParser::Node ExpressionParser::expression(bool with_choice) {
  const Deeper deeper(*this);
  Node node = either();
  while (with_choice && skip_name("if")) {
    Node condition = either();
    Node otherwise = skip_name("else") ? expression() : nullptr;
    node = make(Kind::choice, nodes(std::move(node), std::move(condition), std::move(otherwise)));
  }
  return node;
}

ExpressionParser::Node ExpressionParser::either() {
  auto list = nodes(both());
  while (skip_name("or")) list.push_back(both());
  return list.size() == 1 ? std::move(list[0]) : make(Kind::either, std::move(list));
}

ExpressionParser::Node ExpressionParser::both() {
  auto list = nodes(inverse());
  while (skip_name("and")) list.push_back(inverse());
  return list.size() == 1 ? std::move(list[0]) : make(Kind::both, std::move(list));
}

ExpressionParser::Node ExpressionParser::inverse() {
  if (!is_name("not")) return comparison();
  const Deeper deeper(*this);
  take();
  return make(Kind::inverse, nodes(inverse()));
}

ExpressionParser::Node ExpressionParser::comparison() {
  auto list = nodes(sum());
  std::vector<std::string> operators;
  for (;;) {
    static constexpr std::string_view symbols[] = {"==", "!=", "<", "<=", ">", ">="};
    if (current().kind == Token::Kind::symbol && std::ranges::count(symbols, current().value) > 0) {
      operators.push_back(take().value);
    } else if (skip_name("in")) {
      operators.push_back("in");
    } else if (is_name("not") && following().kind == Token::Kind::name && following().value == "in") {
      take(), take();
      operators.push_back("not in");
    } else {
      break;
    }
    list.push_back(sum());
  }
  if (operators.empty()) return std::move(list[0]);
  Node node = make(Kind::compare, std::move(list));
  node->operators = std::move(operators);
  return node;
}

ExpressionParser::Node ExpressionParser::sum() {
  Node node = concatenation();
  while (is_symbol("+") || is_symbol("-")) {
    std::string name = take().value;
    Node right = concatenation();
    node = make(Kind::arithmetic, nodes(std::move(node), std::move(right)), std::move(name));
  }
  return node;
}

ExpressionParser::Node ExpressionParser::concatenation() {
  auto list = nodes(product());
  while (skip_symbol("~")) list.push_back(product());
  return list.size() == 1 ? std::move(list[0]) : make(Kind::concatenate, std::move(list));
}

ExpressionParser::Node ExpressionParser::product() {
  Node node = power();
  while (is_symbol("*") || is_symbol("/") || is_symbol("//") || is_symbol("%")) {
    std::string name = take().value;
    Node right = power();
    node = make(Kind::arithmetic, nodes(std::move(node), std::move(right)), std::move(name));
  }
  return node;
}

ExpressionParser::Node ExpressionParser::power() {
  Node node = unary(true);
  while (skip_symbol("**")) {
    Node right = unary(true);
    node = make(Kind::arithmetic, nodes(std::move(node), std::move(right)), "**");
  }
  return node;
}

ExpressionParser::Node ExpressionParser::unary(bool with_filter) {
  const Deeper deeper(*this);
  Node node;
  if (is_symbol("-") || is_symbol("+")) {
    const auto kind = take().value == "-" ? Kind::negative : Kind::positive;
    node = make(kind, nodes(unary(false)));
  } else {
    node = primary();
  }
  node = postfix(std::move(node));
  return with_filter ? filters_and_tests(std::move(node)) : std::move(node);
}

ExpressionParser::Node ExpressionParser::literal() {
  const Token token = current();
  Node node;
  const auto constant = [&](Value value) {
    node = make(Kind::constant, {});
    node->value = std::move(value), node->line = token.line;
    return std::move(node);
  };
  switch (token.kind) {
    case Token::Kind::name: {
      take();
      const std::string& n = token.value;
      if (n == "true" || n == "True") return constant(true);
      if (n == "false" || n == "False") return constant(false);
      if (n == "none" || n == "None") return constant(None{});
      node = make(Kind::name, {}, n);
      node->line = token.line;
      return node;
    }
    case Token::Kind::string: {
      std::string whole;
      while (current().kind == Token::Kind::string) whole += take().value;
      return constant(text(std::move(whole), scaffold));
    }
    case Token::Kind::integer: {
      std::string digits = take().value;
      std::erase(digits, '_');
      const char mark = digits.size() > 2 ? char(digits[1] | 0x20) : ' ';
      const int base = digits[0] != '0' ? 10 : mark == 'x' ? 16 : mark == 'o' ? 8 : mark == 'b' ? 2 : 10;
      int64_t number = 0;
      const char* from = digits.data() + (base == 10 ? 0 : 2);
      const auto result = std::from_chars(from, digits.data() + digits.size(), number, base);
      if (result.ec != std::errc()) fail(fmt::format("the number {} is too large", digits.substr(0, 40)));
      return constant(number);
    }
    case Token::Kind::real: {
      std::string digits = take().value;
      std::erase(digits, '_');
      double number = 0;
      std::from_chars(digits.data(), digits.data() + digits.size(), number);
      return constant(number);
    }
    default:
      return nullptr;
  }
}

ExpressionParser::Node ExpressionParser::primary() {
  if (Node node = literal()) return node;
  if (skip_symbol("(")) {
    Node node = tuple(true, true);
    expect_symbol(")");
    return node;
  }
  if (is_symbol("[")) return list();
  if (is_symbol("{")) return dict();
  fail(fmt::format("unexpected {}", shown()));
}

ExpressionParser::Node ExpressionParser::list() {
  std::vector<Node> list;
  comma_separated("[", "]", [&] { list.push_back(expression()); });
  return make(Kind::list, std::move(list));
}

ExpressionParser::Node ExpressionParser::dict() {
  std::vector<Node> list;
  comma_separated("{", "}", [&] {
    list.push_back(expression());
    expect_symbol(":");
    list.push_back(expression());
  });
  return make(Kind::dict, std::move(list));
}

bool ExpressionParser::at_tuple_end() const { return current().kind == Token::Kind::end || is_symbol(")"); }

ExpressionParser::Node ExpressionParser::tuple(bool with_choice, bool in_parentheses) {
  std::vector<Node> list;
  bool several = false;
  for (;;) {
    if (!list.empty()) expect_symbol(",");
    if (at_tuple_end()) break;
    list.push_back(expression(with_choice));
    if (!is_symbol(",")) break;
    several = true;
  }
  if (!several && !list.empty()) return std::move(list[0]);
  if (!several && !in_parentheses) fail(fmt::format("expected an expression, not {}", shown()));
  return make(Kind::tuple, std::move(list));
}

ExpressionParser::Node ExpressionParser::target(bool namespaces) {
  const Deeper deeper(*this);
  std::vector<Node> list;
  bool several = false;
  for (;;) {
    if (!list.empty()) expect_symbol(",");
    if (!list.empty() && (is_name("in") || is_symbol("=") || is_symbol(")"))) break;
    if (skip_symbol("(")) {
      list.push_back(target(false));
      expect_symbol(")");
    } else {
      std::string name = expect_any_name();
      static constexpr std::string_view constants[] = {"true", "false", "none", "True", "False", "None"};
      if (std::ranges::count(constants, name) > 0) fail(fmt::format("cannot assign to {}", name));
      Node node = make(Kind::name, {}, std::move(name));
      if (namespaces && skip_symbol(".")) {
        std::string attribute = expect_any_name();
        node = make(Kind::attribute, nodes(std::move(node)), std::move(attribute));
      }
      list.push_back(std::move(node));
    }
    if (!is_symbol(",")) break;
    several = true;
  }
  return several ? make(Kind::tuple, std::move(list)) : std::move(list[0]);
}

}  // namespace dsengine::jinja
