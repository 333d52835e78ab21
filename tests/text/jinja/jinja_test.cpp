// Jinja against transformers' own environment: tests/golden/make_templates.py wrote the texts. And hostile templates.
#include "text/jinja/jinja.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>

#include "base/check.h"

namespace dsengine {
namespace {

const std::filesystem::path golden = std::filesystem::path(DSE_TEST_DIR) / "golden/templates";

// The text, or "error: …".
std::string rendered(const std::string& source, const jinja::Named& variables = {}, std::time_t now = 0) {
  try {
    return jinja::render(jinja::parse(source, "t"), variables, now).bytes;
  } catch (const UserError& e) {
    return std::string("error: ") + e.what();
  }
}

jinja::Named variables_of(const Json& golden_rows) {
  jinja::Named variables;
  for (const auto& [name, value] : golden_rows["variables"].items())
    variables.emplace_back(name, jinja::value_of(value, jinja::content));
  return variables;
}

TEST(Jinja, RendersAsTransformersDoes) {
  const Json golden_rows = read_json(golden / "expressions.json");
  const jinja::Named variables = variables_of(golden_rows);
  ASSERT_GE(golden_rows["rows"].size(), 800u);
  for (const auto& row : golden_rows["rows"]) {
    const auto source = row[0].get<std::string>();
    const std::string text = rendered(source, variables, golden_rows["now"].get<std::time_t>());
    if (row[1].is_null())
      EXPECT_THAT(text, testing::StartsWith("error: ")) << Json(source);
    else
      EXPECT_EQ(text, row[1].get<std::string>()) << Json(source);
  }
}

std::string repeated(const std::string& part, size_t times) {
  std::string text;
  for (size_t i = 0; i < times; ++i) text += part;
  return text;
}

// Each ends soon, in one line that names the template's.
TEST(Jinja, HostileTemplatesEndInOneLine) {
  const auto around = [](const char* open, const char* inner, const char* close, size_t n) {
    return "\n{{ " + repeated(open, n) + inner + repeated(close, n) + " }}";
  };
  const std::string forever = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}";
  const std::string ends = "{% endfor %}{% endfor %}{% endfor %}";
  const std::pair<std::string, const char*> cases[] = {
      {"\n" + forever + ends, "the template"},
      {"\n" + forever + "{{ a * b * c }}" + ends, "the template"},
      {around("(", "1", ")", 100000), "nested deeper"},
      {around("[", "1", "]", 100000), "nested deeper"},
      {around("-", "1", "", 100000), "nested deeper"},
      {around("not ", "1", "", 100000), "nested deeper"},
      {around("{1:", "1", "}", 100000), "nested deeper"},
      {around("f(", "1", ")", 100000), "nested deeper"},
      {around("1 if ", "1", " else 2", 100000), ""},
      {around("1+", "1", "", 100000), "in a row"},
      {around("a", "", ".b", 100000), "in a row"},
      {around("a", "", "[0]", 100000), "in a row"},
      {around("a", "", "|upper", 100000), "in a row"},
      {around("a", "", "()", 100000), "in a row"},
      {around("a", "", " is odd", 100000), "chained"},
      {around("2**", "2", "", 100000), "in a row"},
      {"\n" + repeated("{% if 1 %}", 100000), "nested deeper"},
      {"\n" + repeated("{% for a in b %}", 100000), "nested deeper"},
      {"\n{% if 0 %}" + repeated("{% elif 0 %}", 100000) + "{% endif %}", "nested deeper"},
      {"\n{% set " + repeated("(", 100000) + "a" + repeated(")", 100000) + " = 1 %}", "nested deeper"},
      {"\n{% set n = namespace(x='ab') %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}", "256 MB"},
      {"\n{% set n = namespace(x=[1]) %}{% for i in range(99) %}{% set n.x = n.x + n.x %}{% endfor %}", "more than"},
      {"\n{% set n = namespace(x=[1]) %}{% for i in range(9999) %}{% set n.x = [n.x] %}{% endfor %}", "nested deeper"},
      {"\n{% set n = namespace(x=[1]) %}{% for i in range(9999) %}{% set n.x = [n.x.index] %}{% endfor %}",
       "nested deeper"},
      {"\n{% set n = namespace(x=1) %}{% for i in range(9999) %}{% for j in [n.x] %}{% set n.x = loop %}{% endfor %}{% "
       "endfor %}",
       "nested deeper"},
      {"\n{% set n = namespace(x=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% endfor %}{{ n.x }}",
       "the template"},
      {"\n{% set n = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set n.x = [n.x, n.x] %}{% set n.y = [n.y, "
       "n.y] %}"
       "{% endfor %}{{ n.x == n.y }}",
       "too many steps"},
      // What is copied, compared and searched counts by its bytes.
      {"\n{% set n = namespace(x=[]) %}{% set s = 'a' * 1000000 %}{% for i in range(999) %}{% set n.x = n.x + [s[1:]] "
       "%}"
       "{% endfor %}",
       "256 MB"},
      {"\n{% set s = 'a' * 1000000 %}{% set t = 'a' * 1000000 %}{% for i in range(99999) %}{% if s.startswith(t) %}"
       "{% endif %}{% endfor %}",
       "too many steps"},
      {"\n{% set s = 'a' * 400000 %}{{ s.find('a' * 200000 + 'b') }}", "too many steps"},
      {"\n{% set s = 'a' * 400000 %}{{ s.count('a' * 200000 + 'b') }}", "too many steps"},
      {"\n{% set s = 'a' * 400000 %}{{ s.split('a' * 200000 + 'b') }}", "too many steps"},
      {"\n{% set s = 'a' * 400000 %}{{ s.replace('a' * 200000 + 'b', '') }}", "too many steps"},
      {"\n{% set s = 'a' * 400000 %}{{ s.partition('a' * 200000 + 'b') }}", "too many steps"},
      {"\n{% set s = 'a' * 400000 %}{{ ('a' * 200000 + 'b') in s }}", "too many steps"},
      {"\n{% set s = 'a' * 400000 %}{{ s.strip('b' * 200000) }}", "too many steps"},
      {"\n{% set s = 'a' * 400000 %}{{ s | trim('b' * 200000) }}", "too many steps"},
      {"\n{{ 'a' * 999999999999 }}", "256 MB"},
      {"\n{{ [1] * 999999999999 }}", "the template"},
      {"\n{{ ('a' * 99999999) | upper | tojson | indent }}", "the template"},
      {"\n{{ 'x' | indent(99999999999) }}", "256 MB"},
      {"\n{{ [1, 2] | batch(99999999999, 0) | list }}", "the template"},
      {"\n{{ range(999999999999) }}", "100000"},
      {"\n{{ 9 ** 9 ** 9 }}", "64 bits"},
      {"\n{{ 9223372036854775807 + 1 }}", "64 bits"},
      {"\n{{ -9223372036854775807 - 2 }}", "64 bits"},
      {"\n{{ 99999999999999999999 }}", "too large"},
      {"\n{% macro f(x) %}{{ f(x) }}{% endmacro %}{{ f(1) }}", "too deeply"},
      {"\n{% macro f(x) %}{{ g(x) }}{% endmacro %}{% macro g(x) %}{{ f(x) ~ f(x) }}{% endmacro %}{{ f(1) }}",
       "too deeply"},
      {"\n{% set n = namespace() %}{% set n.n = n %}{{ n.n.n.n.x }}{{ missing.x }}", "undefined"},
      {"\n{{", "without its"},
      {"\n{% raw %}", "endraw"},
      {"\n{{ '\\ud800' }}", "no character"},
      {"\n{{ '%s' * 9 % 1 }}", "not enough"},
      {"\n{{ 1 if", "without its"}};
  for (const auto& [source, says] : cases) {
    const auto start = std::chrono::steady_clock::now();
    const std::string text = rendered(source);
    const std::string shown = source.substr(0, 120);
    EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(20)) << shown;
    EXPECT_THAT(text, testing::HasSubstr(says)) << shown;
    EXPECT_THAT(text, testing::StartsWith("error: t:2: ")) << shown;
    EXPECT_LT(text.size(), 400u) << shown;
    EXPECT_EQ(text.find('\n'), std::string::npos) << shown;
  }
}

// Deep within the bounds: the stack holds it.
TEST(Jinja, WhatIsWithinTheBoundsRenders) {
  EXPECT_EQ(rendered("{{ " + repeated("(", 95) + "1" + repeated(")", 95) + " }}"), "1");
  EXPECT_EQ(rendered("{{ 0" + repeated("+1", 300) + " }}"), "300");
  EXPECT_EQ(rendered(repeated("{% if 1 %}", 90) + "x" + repeated("{% endif %}", 90)), "x");
  EXPECT_EQ(rendered("{% macro f(n) %}{% if n %}{{ n % 10 ~ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) | length }}"),
            "60");
}

// Pieces of templates thrown together, and templates with bytes changed.
TEST(Jinja, WhateverTheBytesParsingAndRenderingEnd) {
  const Json golden_rows = read_json(golden / "expressions.json");
  const Json& rows = golden_rows["rows"];
  const jinja::Named variables = variables_of(golden_rows);
  uint32_t state = 1;
  const auto draw = [&](size_t n) { return size_t((state = state * 1664525 + 1013904223) >> 8) % n; };
  for (int round = 0; round < 4000; ++round) {
    std::string source = rows[draw(rows.size())][0].get<std::string>();
    const std::string other = rows[draw(rows.size())][0].get<std::string>();
    source = source.substr(0, draw(source.size() + 1)) + other.substr(draw(other.size() + 1));
    for (size_t i = draw(4); i > 0 && !source.empty(); --i)
      source[draw(source.size())] = "{}%#()[]|.'\"-+ \n1a"[draw(18)];
    rendered(source, variables);
  }
}

}  // namespace
}  // namespace dsengine
