// Jinja against transformers' own environment: tests/golden/make_templates.py wrote the texts. And hostile templates.
#include "text/jinja.h"

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

TEST(Jinja, RendersAsTransformersDoes) {
  const Json golden_rows = read_json(golden / "expressions.json");
  jinja::Named variables;
  for (const auto& [name, value] : golden_rows["variables"].items())
    variables.emplace_back(name, jinja::value_of(value, jinja::content));
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

}  // namespace
}  // namespace dsengine
