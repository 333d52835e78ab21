// Expressions of a chat template, for the parser of its statements.
//
//   ExpressionParser parser(tokens);
//   ExpressionPtr e = parser.expression();   // tokens up to what no longer belongs to it
#pragma once
#include "text/jinja/ast.h"
#include "text/jinja/lexer.h"

namespace dsengine::jinja {

class ExpressionParser {
 public:
  explicit ExpressionParser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

 protected:
  using Node = std::unique_ptr<Expression>;
  using Kind = Expression::Kind;

  const Token& current() const { return tokens_[at_]; }
  const Token& following() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  Token take() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_[at_]; }
  bool is_symbol(std::string_view s) const { return current().kind == Token::Kind::symbol && current().value == s; }
  bool is_name(std::string_view s) const { return current().kind == Token::Kind::name && current().value == s; }
  bool skip_symbol(std::string_view s) { return is_symbol(s) && (take(), true); }
  bool skip_name(std::string_view s) { return is_name(s) && (take(), true); }
  void expect_symbol(std::string_view s);
  void expect_name(std::string_view s);
  std::string expect_any_name();
  [[noreturn]] void fail(const std::string& what) const;
  std::string shown() const;  // the current token, for errors

  // item() reads one of what stands between `open` and `close`, with commas between and perhaps one behind.
  template <class F>
  void comma_separated(std::string_view open, std::string_view close, const F& item) {
    expect_symbol(open);
    for (bool first = true; !is_symbol(close); first = false) {
      if (!first) expect_symbol(",");
      if (is_symbol(close)) break;
      item();
    }
    expect_symbol(close);
  }

  Node expression(bool with_choice = true);
  Node tuple(bool with_choice = true, bool in_parentheses = false);
  Node target(bool namespaces);  // what is assigned to
  Node filters_of(Node node, bool first_without_bar);

  // Nesting is bounded while it is parsed, and trees as they are made.
  struct Deeper {
    explicit Deeper(ExpressionParser& parser);
    ~Deeper() { --parser_.nesting_; }
    ExpressionParser& parser_;
  };

 private:
  Node make(Kind kind, std::vector<Node> items, std::string name = "");
  bool at_tuple_end() const;
  Node either();
  Node both();
  Node inverse();
  Node comparison();
  Node sum();
  Node concatenation();
  Node product();
  Node power();
  Node unary(bool with_filter);
  Node primary();
  Node literal();  // or a name; null where neither stands
  Node list();
  Node dict();
  Node postfix(Node node);
  Node filters_and_tests(Node node);
  Node subscript(Node node);
  Node subscribed(Node node);
  Node test(Node node);
  void arguments(std::vector<Node>& items, Expression& to);
  Node called(Kind kind, Node node, std::string name, int line);

  std::vector<Token> tokens_;
  size_t at_ = 0;
  int nesting_ = 0;
};

}  // namespace dsengine::jinja
