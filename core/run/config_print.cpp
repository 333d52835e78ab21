#include "run/config_print.h"

#include <fmt/format.h>

#include <algorithm>
#include <cctype>
#include <type_traits>

namespace dsengine {
namespace {

bool is_bare_key(std::string_view key) {
  return !key.empty() &&
         std::all_of(key.begin(), key.end(), [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-'; });
}

std::string toml_key(std::string_view key) {
  return is_bare_key(key) ? std::string(key) : toml_value(std::string(key));
}

template <class T>
std::string text_of(const T& value) {
  return toml_value(value);
}
template <Choice E>
std::string text_of(const E& choice) {
  return toml_value(std::string(name_of(choice)));
}

// Prints a struct as TOML with headers, or flat: every key with its full path on a line of its own.
class KeyPrinter {
 public:
  explicit KeyPrinter(bool flat) : flat_(flat) {}
  std::string text() const { return text_; }

  template <class T>
  void value(std::string_view name, const T& value, std::string_view, const Limits& = {}) {
    line(name, text_of(value));
  }
  void model(std::string_view name, const std::string& from, std::string_view) { line(name, toml_value(from)); }

  void paths(std::string_view name, const std::vector<std::filesystem::path>& paths, std::string_view) {
    std::string items;
    for (const auto& path : paths) items += (items.empty() ? "" : ", ") + toml_value(path);
    line(name, "[" + items + "]");
  }

  void numbers(std::string_view name, const std::vector<double>& values, std::string_view, const Limits&) {
    std::string items;
    for (const double value : values) items += (items.empty() ? "" : ", ") + toml_value(value);
    line(name, "[" + items + "]");
  }

  template <class Body>
  void table(std::string_view name, std::string_view, const Body& body) {
    inside(toml_key(name), "\n[{}]\n", body);
  }

  template <class T>
  void list(std::string_view name, std::vector<T>& items, const T&, std::string_view) {
    for (size_t i = 0; i < items.size(); ++i)
      inside(flat_ ? fmt::format("{}[{}]", name, i) : std::string(name), "\n[[{}]]\n",
             [&] { describe(*this, items[i]); });
  }

  void plugin_key(std::string_view, const char*, const char*, std::string_view) {}  // printed with the options
  void options(const OptionValues& options, std::string_view) {
    for (const auto& [name, option] : options)
      line(name, std::visit([](const auto& value) { return toml_value(value); }, option.value));
  }

  void named_options(std::string_view name, const std::map<std::string, OptionValues>& groups, std::string_view help) {
    for (const auto& [group, values] : groups)
      inside(fmt::format("{}.{}", name, toml_key(group)), "\n[{}]\n", [&, &own = values] { options(own, help); });
  }

  // The values that defaults led to are printed instead of the defaults.
  template <class Body>
  void shared(const Body&) {}

 private:
  void line(std::string_view name, const std::string& value) {
    text_ += fmt::format("{}{} = {}\n", flat_ ? prefix_ : "", toml_key(name), value);
  }

  template <class Body>
  void inside(const std::string& name, const char* header, const Body& body) {
    const std::string outer = prefix_;
    if (!flat_) text_ += fmt::format(fmt::runtime(header), prefix_ + name);
    prefix_ += name + ".";
    body();
    prefix_ = outer;
  }

  bool flat_;
  std::string prefix_, text_;
};

// Collects the rows themselves, for the docs and for --set.
class KeyList {
 public:
  std::vector<KeyRow> rows;

  template <class T>
  void value(std::string_view name, const T& value, std::string_view help, const Limits& limits = {}) {
    add(name, type_name(value), limits.required ? "required" : text_of(value), help, range_text(limits),
        std::is_convertible_v<T, std::string>);
  }
  template <Choice E>
  void value(std::string_view name, const E& value, std::string_view help, const Limits& = {}) {
    add(name, "string", text_of(value), help, range_text(limits_of<E>()), true);
  }
  void model(std::string_view name, const std::string& from, std::string_view help) {
    add(name, "string", toml_value(from), help, "", true);
  }
  void paths(std::string_view name, const std::vector<std::filesystem::path>&, std::string_view help) {
    add(name, "array of strings", "[]", help);
  }
  void numbers(std::string_view name, const std::vector<double>&, std::string_view help, const Limits& limits) {
    add(name, "array of numbers", "[]", help, range_text(limits));
  }

  template <class Body>
  void table(std::string_view name, std::string_view help, const Body& body) {
    add(name, "table", "", help);
    inside(std::string(name), body);
  }

  template <class T>
  void list(std::string_view name, const std::vector<T>&, T prototype, std::string_view help) {
    add(name, "array of tables", "[]", help);
    inside(std::string(name) + "[]", [&] { describe(*this, prototype); });
  }

  void plugin_key(std::string_view name, const char* type, const char* default_text, std::string_view help) {
    add(name, type, default_text, help);
  }
  void options(const OptionValues&, std::string_view help) { add("*", "option", "", help); }
  void named_options(std::string_view name, const std::map<std::string, OptionValues>&, std::string_view help) {
    add(name, "table", "", help);
    inside(std::string(name), [&] { add("*.*", "option", "", help); });
  }

  template <class Body>
  void shared(const Body& body) {
    body();
  }

 private:
  static std::string type_name(bool) { return "boolean"; }
  static std::string type_name(int64_t) { return "integer"; }
  static std::string type_name(uint64_t) { return "integer"; }
  static std::string type_name(double) { return "number"; }
  static std::string type_name(const std::string&) { return "string"; }
  static std::string type_name(const std::filesystem::path&) { return "path"; }
  static std::string type_name(const std::vector<std::string>&) { return "array of strings"; }
  static std::string type_name(const std::vector<int64_t>&) { return "array of integers"; }

  void add(std::string_view name, std::string type, std::string default_text, std::string_view help,
           std::string range = "", bool wants_string = false) {
    rows.push_back({.path = prefix_ + std::string(name),
                    .type = std::move(type),
                    .default_text = std::move(default_text),
                    .range = std::move(range),
                    .help = std::string(help),
                    .wants_string = wants_string});
  }

  template <class Body>
  void inside(const std::string& name, const Body& body) {
    const std::string outer = prefix_;
    prefix_ += name + ".";
    body();
    prefix_ = outer;
  }

  std::string prefix_;
};

std::string markdown_row(const KeyRow& row, std::string_view name) {
  std::string help = row.help;
  if (!row.range.empty()) help += fmt::format(" ({})", row.range);
  const std::string value =
      row.default_text.empty() || row.default_text == "required" ? row.default_text : "`" + row.default_text + "`";
  return fmt::format("| `{}` | {} | {} | {} |\n", name, row.type, value, help);
}

}  // namespace

std::string range_text(const Limits& limits) {
  if (!limits.choices.empty()) return fmt::format("one of {}", fmt::join(limits.choices, ", "));
  const bool has_min = limits.min != -Limits::none, has_max = limits.max != Limits::none;
  if (has_min && has_max) return fmt::format("from {} to {}", limits.min, limits.max);
  std::vector<std::string> parts;
  if (has_min) parts.push_back(fmt::format("at least {}", limits.min));
  if (limits.above != -Limits::none) parts.push_back(fmt::format("above {}", limits.above));
  if (has_max) parts.push_back(fmt::format("at most {}", limits.max));
  if (limits.below != Limits::none) parts.push_back(fmt::format("below {}", limits.below));
  return fmt::format("{}", fmt::join(parts, " and "));
}

std::string toml_text(const RunConfig& config) {
  KeyPrinter printer(false);
  RunConfig copy = config;
  describe(printer, copy);
  return printer.text();
}

std::string stage_settings(const RunConfig& config, const StageConfig& stage) {
  KeyPrinter printer(true);
  RunConfig run = config;
  run.stages.clear();
  describe(printer, run);
  StageConfig copy = stage;
  describe(printer, copy);
  return printer.text();
}

std::vector<KeyRow> config_key_rows() {
  KeyList list;
  RunConfig config;
  describe(list, config);
  return std::move(list.rows);
}

std::string config_reference_markdown() {
  // One section a table, in the order in which the tables are first met; equal sections refer to the first.
  std::vector<std::pair<std::string, std::string>> sections;  // title, rows
  for (const KeyRow& row : config_key_rows()) {
    const size_t any = row.path.find(".*");
    const size_t dot = any == std::string::npos ? row.path.rfind('.') : any;
    const std::string title = dot == std::string::npos ? "" : row.path.substr(0, dot);
    auto section = std::find_if(sections.begin(), sections.end(), [&](const auto& s) { return s.first == title; });
    if (section == sections.end()) section = sections.insert(section, {title, ""});
    section->second += markdown_row(row, dot == std::string::npos ? row.path : row.path.substr(dot + 1));
  }
  std::string text;
  std::map<std::string, std::string> titles;  // rows → the section that has them
  for (const auto& [title, rows] : sections) {
    text += title.empty()
                ? fmt::format("An integer is at most {} where no other bound is given.\n\n## The run\n\n", kMostCount)
                : fmt::format("\n## `{}`\n\n", title);
    const auto [same, is_new] = titles.emplace(rows, title);
    if (is_new)
      text += "| key | type | default | meaning |\n|---|---|---|---|\n" + rows;
    else
      text += fmt::format("The keys of `{}`.\n", same->second);
  }
  return text;
}

}  // namespace dsengine
