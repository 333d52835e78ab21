#include <fmt/format.h>

#include <algorithm>
#include <deque>

#include "base/check.h"
#include "base/printable.h"
#include "text/jinja/parser.h"
#include "text/utf8.h"

namespace dsengine::jinja {
namespace {

class StatementParser : ExpressionParser {
 public:
  explicit StatementParser(std::vector<Token> tokens) : ExpressionParser(std::move(tokens)) {}

  Body run() {
    Body body = statements({});
    if (current().kind != Token::Kind::source_end) fail(fmt::format("unexpected {}", shown()));
    return body;
  }

 private:
  using Kind = Statement::Kind;

  // Statements up to a tag of one of these names, whose name is then the current token; to the end where there are
  // none.
  Body statements(std::vector<std::string_view> ends) {
    const Deeper deeper(*this);
    Body body;
    const int from = current().line;
    for (;;) {
      const Token token = current();
      if (token.kind == Token::Kind::source_end) {
        if (!ends.empty()) throw SyntaxError{fmt::format("a block without its {}", ends.back()), from};
        return body;
      }
      take();
      if (token.kind == Token::Kind::text) {
        body.push_back({.kind = Kind::text, .line = token.line, .value = text(token.value, scaffold)});
      } else if (token.value == "{{") {
        body.push_back({.kind = Kind::print, .line = token.line, .expression = tuple()});
        expect_end();
      } else {
        if (current().kind != Token::Kind::name) fail(fmt::format("expected a statement, not {}", shown()));
        if (std::ranges::count(ends, current().value) > 0) return body;
        body.push_back(statement());
      }
    }
  }

  void expect_end() {
    if (current().kind != Token::Kind::end) fail(fmt::format("unexpected {}", shown()));
    take();
  }
  void finish(std::string_view name) {
    expect_name(name);
    expect_end();
  }

  Statement statement() {
    const int line = current().line;
    const std::string name = take().value;
    Statement made{.kind = Kind::next, .line = line};
    if (name == "for") return loop(line);
    if (name == "if") return choice(line);
    if (name == "set") return set(line);
    if (name == "macro") return macro(line);
    if (name == "with") return with(line);
    if (name == "generation") {
      made.kind = Kind::generation;
      expect_end();
      made.body = inside_a_call([&] { return statements({"endgeneration"}); });
      finish("endgeneration");
      return made;
    }
    if (name == "filter") {
      made.kind = Kind::filter;
      made.condition = filters_of(placeholder(), true);
      expect_end();
      made.body = statements({"endfilter"});
      finish("endfilter");
      return made;
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) throw SyntaxError{fmt::format("'{}' outside of a loop", name), line};
      made.kind = name == "break" ? Kind::stop : Kind::next;
      expect_end();
      return made;
    }
    throw SyntaxError{fmt::format("unknown tag '{}'", name.substr(0, 40)), line};
  }

  // What a filter of a block is applied to.
  Node placeholder() const {
    return std::make_unique<Expression>(Expression{.kind = Expression::Kind::constant, .line = current().line});
  }

  // A loop outside is out of reach of break and continue.
  template <class F>
  Body inside_a_call(F&& body) {
    const int loops = std::exchange(loops_, 0);
    Body made = body();
    loops_ = loops;
    return made;
  }

  Statement loop(int line) {
    Statement made{.kind = Kind::loop, .line = line};
    made.target = target(false);
    expect_name("in");
    made.expression = tuple(false);
    if (skip_name("if")) made.condition = expression();
    if (is_name("recursive")) fail("recursive loops are not supported");
    expect_end();
    ++loops_;
    made.body = statements({"else", "endfor"});
    --loops_;
    if (skip_name("else")) {
      expect_end();
      made.otherwise = statements({"endfor"});
    }
    finish("endfor");
    return made;
  }

  // Each elif is a choice within the one before it, and counts as a level.
  Statement choice(int line) {
    std::vector<Statement> branches;
    std::deque<Deeper> levels;
    Body otherwise;
    for (;;) {
      levels.emplace_back(static_cast<ExpressionParser&>(*this));
      Statement branch{.kind = Kind::choice, .line = line, .expression = tuple(false)};
      expect_end();
      branch.body = statements({"elif", "else", "endif"});
      branches.push_back(std::move(branch));
      line = current().line;
      if (skip_name("elif")) continue;
      if (skip_name("else")) {
        expect_end();
        otherwise = statements({"endif"});
      }
      break;
    }
    finish("endif");
    while (branches.size() > 1) {
      branches.back().otherwise = std::move(otherwise);
      otherwise.clear();
      otherwise.push_back(std::move(branches.back()));
      branches.pop_back();
    }
    branches[0].otherwise = std::move(otherwise);
    return std::move(branches[0]);
  }

  Statement set(int line) {
    Statement made{.kind = Kind::set, .line = line};
    made.target = target(true);
    if (skip_symbol("=")) {
      made.expression = tuple();
      expect_end();
      return made;
    }
    if (is_symbol("|")) made.condition = filters_of(placeholder(), false);
    expect_end();
    made.body = statements({"endset"});
    finish("endset");
    return made;
  }

  Statement macro(int line) {
    Statement made{.kind = Kind::macro, .line = line, .name = expect_any_name()};
    comma_separated("(", ")", [&] {
      std::string name = expect_any_name();
      Node value = skip_symbol("=") ? expression() : nullptr;
      if (!value && !made.parameters.empty() && made.parameters.back().second)
        fail("a parameter without a default follows one that has it");
      made.parameters.emplace_back(std::move(name), std::move(value));
    });
    expect_end();
    made.body = inside_a_call([&] { return statements({"endmacro"}); });
    finish("endmacro");
    return made;
  }

  Statement with(int line) {
    Statement made{.kind = Kind::with, .line = line};
    while (current().kind != Token::Kind::end) {
      if (!made.parameters.empty()) expect_symbol(",");
      std::string name = expect_any_name();
      expect_symbol("=");
      made.parameters.emplace_back(std::move(name), expression());
    }
    expect_end();
    made.body = statements({"endwith"});
    finish("endwith");
    return made;
  }

  int loops_ = 0;
};

}  // namespace

bool has_generation(const Body& body) {
  return std::ranges::any_of(body, [](const Statement& s) {
    return s.kind == Statement::Kind::generation || has_generation(s.body) || has_generation(s.otherwise);
  });
}

Template parse(std::string_view source, const std::string& where) {
  DSE_CHECK_USER(is_valid_utf8(source), "{} is not valid UTF-8: convert it", where);
  try {
    return {where, StatementParser(tokenize(source)).run()};
  } catch (const SyntaxError& e) {
    throw UserError(error_line("{}:{}: the chat template cannot be read: {}", where, e.line, e.what));
  }
}

}  // namespace dsengine::jinja
