#include "run/config_value.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "base/printable.h"
#include "run/config_print.h"
#include "run/config_set.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

const char* type_text(const toml::node& node) {
  switch (node.type()) {
    case toml::node_type::table:
      return "a table";
    case toml::node_type::array:
      return "an array";
    case toml::node_type::string:
      return "a string";
    case toml::node_type::integer:
      return "an integer";
    case toml::node_type::floating_point:
      return "a number with a fraction";
    case toml::node_type::boolean:
      return "a boolean";
    default:
      return "a date or time";
  }
}

void check_range(const toml::node& node, const std::string& key, double value, const Limits& limits) {
  const bool inside = value >= limits.min && value <= limits.max && std::isfinite(value) && (value > limits.above) &&
                      (value < limits.below);
  const std::string range = range_text(limits);
  DSE_CHECK_USER(inside, "{}: '{}' must be {}, is {}", where(node), key, range.empty() ? "finite" : range, value);
}

}  // namespace

std::string where(const toml::node& node) {
  const toml::source_region& source = node.source();
  if (!source.path) return "the configuration";
  return is_set(node) ? *source.path : fmt::format("{}:{}", *source.path, source.begin.line);
}

void wrong_type(const toml::node& node, const std::string& key, const char* expected) {
  throw UserError(error_line("{}: '{}' expects {}, has {}", where(node), key, expected, type_text(node)));
}

fs::path absolute_path(const toml::node& node, const fs::path& path, bool in_working_directory) {
  if (path.empty()) return path;
  const auto& file = node.source().path;
  const bool of_file = file && !is_set(node) && !in_working_directory;
  const fs::path folder = of_file ? fs::absolute(*file).parent_path() : fs::current_path();
  return (folder / path).lexically_normal();
}

void read_value(const toml::node& node, const std::string& key, bool& out, const Limits&) {
  if (!node.is_boolean()) wrong_type(node, key, "true or false");
  out = **node.as_boolean();
}

void read_value(const toml::node& node, const std::string& key, int64_t& out, const Limits& limits) {
  if (!node.is_integer()) wrong_type(node, key, "an integer");
  out = **node.as_integer();
  check_range(node, key, static_cast<double>(out), limits);
  // Sums and products of counts stay within 64 bits.
  DSE_CHECK_USER(out <= kMostCount || limits.max != Limits::none, "{}: '{}' must be at most {}, is {}", where(node),
                 key, kMostCount, out);
}

void read_value(const toml::node& node, const std::string& key, uint64_t& out, const Limits& limits) {
  if (!node.is_integer()) wrong_type(node, key, "an integer");
  const int64_t value = **node.as_integer();
  check_range(node, key, static_cast<double>(value), limits);
  out = static_cast<uint64_t>(value);
}

void read_value(const toml::node& node, const std::string& key, double& out, const Limits& limits) {
  if (!node.is_number()) wrong_type(node, key, "a number");
  const auto value = node.value<double>();
  DSE_CHECK_USER(value, "{}: '{}' is {}, which no floating-point number holds exactly", where(node), key,
                 **node.as_integer());
  out = *value;
  check_range(node, key, out, limits);
}

void read_value(const toml::node& node, const std::string& key, std::string& out, const Limits& limits) {
  if (!node.is_string()) wrong_type(node, key, "a string");
  out = **node.as_string();
  const auto& choices = limits.choices;
  const bool chosen = choices.empty() || std::find(choices.begin(), choices.end(), out) != choices.end();
  DSE_CHECK_USER(chosen, "{}: '{}' must be {}, is '{}'", where(node), key, range_text(limits), out);
  const bool may_be_empty = !limits.required && !limits.non_empty;
  DSE_CHECK_USER(may_be_empty || !out.empty(), "{}: '{}' is empty", where(node), key);
}

void read_value(const toml::node& node, const std::string& key, fs::path& out, const Limits& limits) {
  std::string text;
  read_value(node, key, text, limits);
  out = absolute_path(node, text, limits.in_working_directory);
}

void read_value(const toml::node& node, const std::string& key, OptionValue& out) {
  if (node.is_boolean())
    out.value = **node.as_boolean();
  else if (node.is_integer())
    out.value = **node.as_integer();
  else if (node.is_floating_point())
    out.value = **node.as_floating_point();
  else if (node.is_string())
    out.value = **node.as_string();
  else
    wrong_type(node, key, "a boolean, a number or a string");
  out.where = fmt::format("{}: {}", where(node), key);
}

}  // namespace dsengine
