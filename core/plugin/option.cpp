#include "plugin/option.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <limits>
#include <optional>

#include "base/check.h"
#include "base/json.h"
#include "base/printable.h"

namespace dsengine {
namespace {

template <class Number>
std::optional<OptionVariant> parse_number(std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

std::optional<OptionVariant> parse_default(const dse_option& option) {
  const std::string_view text = option.default_value;
  switch (option.type) {
    case DSE_OPTION_BOOLEAN:
      if (text == "true" || text == "false") return text == "true";
      return {};
    case DSE_OPTION_INTEGER:
      return parse_number<int64_t>(text);
    case DSE_OPTION_REAL:
      return parse_number<double>(text);
    default:
      return std::string(text);
  }
}

std::vector<std::string> split_choices(std::string_view choices) {
  std::vector<std::string> result(1);
  for (const char c : choices)
    if (c == '|')
      result.emplace_back();
    else
      result.back() += c;
  return result;
}

bool has_range(const dse_option& option) {
  return (option.type == DSE_OPTION_INTEGER || option.type == DSE_OPTION_REAL) && option.minimum <= option.maximum;
}

// "" or why a value of the right type is not admitted.
std::string value_fault(const dse_option& option, const OptionVariant& value) {
  if (const auto* text = std::get_if<std::string>(&value)) {
    if (!option.choices) return "";
    const auto known = split_choices(option.choices);
    if (std::find(known.begin(), known.end(), *text) != known.end()) return "";
    const auto near = nearest_name(*text, known);
    return fmt::format("{} is none of {}{}", to_toml(value), option_domain(option),
                       near.empty() ? "" : fmt::format("; did you mean \"{}\"?", near));
  }
  if (std::holds_alternative<bool>(value)) return "";
  const double number =
      std::holds_alternative<double>(value) ? std::get<double>(value) : static_cast<double>(std::get<int64_t>(value));
  if (std::isnan(number)) return "nan is no number";
  if (has_range(option) && (number < option.minimum || number > option.maximum))
    return fmt::format("{} is outside {}", to_toml(value), option_domain(option));
  return "";
}

bool type_matches(uint32_t type, const OptionVariant& value) { return value.index() + 1 == type; }
static_assert(DSE_OPTION_BOOLEAN == 1 && DSE_OPTION_INTEGER == 2 && DSE_OPTION_REAL == 3 && DSE_OPTION_STRING == 4 &&
              std::is_same_v<std::variant_alternative_t<3, OptionVariant>, std::string>);

std::string bound(uint32_t type, double value) {
  return type == DSE_OPTION_INTEGER ? fmt::format("{}", value) : to_toml(OptionVariant(value));
}

}  // namespace

const char* option_type_name(uint32_t type) {
  constexpr const char* names[] = {"boolean", "integer", "real", "string"};
  return type >= 1 && type <= 4 ? names[type - 1] : "unknown type";
}

std::string option_domain(const dse_option& option) {
  if (option.type == DSE_OPTION_STRING && option.choices) {
    std::string text;
    for (const auto& choice : split_choices(option.choices)) text += (text.empty() ? "" : " | ") + choice;
    return text;
  }
  if (!has_range(option)) return "";
  constexpr double infinity = std::numeric_limits<double>::infinity();
  if (option.minimum == -infinity && option.maximum == infinity) return "";
  if (option.maximum == infinity) return "≥ " + bound(option.type, option.minimum);
  if (option.minimum == -infinity) return "≤ " + bound(option.type, option.maximum);
  return bound(option.type, option.minimum) + " … " + bound(option.type, option.maximum);
}

std::string option_fault(const dse_option& option) {
  const std::string_view name = option.name ? option.name : "";
  const auto in_name = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  if (name.empty()) return "has no name";
  if (!std::all_of(name.begin(), name.end(), in_name)) return "its name is not snake_case";
  if (option.type < DSE_OPTION_BOOLEAN || option.type > DSE_OPTION_STRING)
    return fmt::format("its type {} is none of DSE_OPTION_…", option.type);
  if (std::isnan(option.minimum) || std::isnan(option.maximum)) return "its range holds nan";
  if (!option.default_value) return "";
  const auto value = parse_default(option);
  if (!value)
    return fmt::format("its default '{}' is not of type {}", option.default_value, option_type_name(option.type));
  if (const auto fault = value_fault(option, *value); !fault.empty())
    return fmt::format("its default {}{}", fault, has_range(option) ? " (a minimum > maximum means no range)" : "");
  return "";
}

OptionVariant default_option(const dse_option& option) { return parse_default(option).value(); }

OptionVariant checked_option(const dse_option& option, const OptionValue& given) {
  OptionVariant value = given.value;
  if (const auto* whole = std::get_if<int64_t>(&value); whole && option.type == DSE_OPTION_REAL) {
    const auto real = static_cast<double>(*whole);
    DSE_CHECK_USER(real < 0x1p63 && static_cast<int64_t>(real) == *whole,
                   "{}: {} is a whole number that no floating-point number holds exactly", given.where, *whole);
    value = real;
  }
  DSE_CHECK_USER(type_matches(option.type, value), "{}: wants {}, not {}", given.where, option_type_name(option.type),
                 to_toml(given.value));
  const auto fault = value_fault(option, value);
  DSE_CHECK_USER(fault.empty(), "{}: {}", given.where, fault);
  return value;
}

std::string to_toml(const OptionVariant& value) {
  if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
  if (const auto* integer = std::get_if<int64_t>(&value)) return fmt::format("{}", *integer);
  if (const auto* real = std::get_if<double>(&value)) {
    auto text = fmt::format("{}", *real);
    if (text.find_first_not_of("-0123456789") == std::string::npos) text += ".0";
    return text;
  }
  std::string text = "\"";
  for (const char c : std::get<std::string>(value)) {
    if (c == '"' || c == '\\')
      text += {'\\', c};
    else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)
      text += fmt::format("\\u{:04X}", static_cast<unsigned char>(c));
    else
      text += c;
  }
  return text + '"';
}

}  // namespace dsengine
