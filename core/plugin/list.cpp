#include "plugin/list.h"

#include <fmt/format.h>

#include <algorithm>

#include "plugin/option.h"

namespace dsengine {
namespace {

using Row = std::vector<std::string>;

// Code points, so that "…" and "≥" take one column.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

// Columns two blanks apart, each as wide as its widest cell; the last is not padded.
std::string aligned(const std::vector<Row>& rows, const std::string& indent) {
  std::vector<size_t> widths(rows[0].size());
  for (const auto& row : rows)
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], width_of(row[c]));
  std::string text;
  for (const auto& row : rows) {
    std::string line = indent;
    for (size_t c = 0; c < row.size(); ++c)
      line += row[c] + std::string(c + 1 < row.size() ? widths[c] - width_of(row[c]) + 2 : 0, ' ');
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + '\n';
  }
  return text;
}

}  // namespace

std::string list_plugins(const PluginRegistry& registry) {
  std::vector<Row> rows{{"KIND", "NAME", "VERSION", "FILE", "SUMMARY"}};
  for (const auto& [item, file] : registry.listing())
    rows.push_back({item_kind_name(item.kind), item.name, item.version, file.filename().string(), item.summary});
  std::string text = aligned(rows, "");
  for (const auto& [file, by] : registry.hidden())
    text += fmt::format("hidden: {} by {}\n", file.string(), by.string());
  for (const auto& failure : registry.failures()) text += "failed to load: " + failure + '\n';
  return text;
}

std::string describe_item(const Item& item) {
  std::string text = fmt::format("{} {}\n", item_kind_name(item.kind), item.name);
  std::vector<Row> facts;
  if (!item.summary.empty()) facts.push_back({"summary", item.summary});
  facts.push_back({"plugin", item.plugin + " " + item.version});
  facts.push_back({"file", item.file.string()});
  facts.push_back({"sha256", item.sha256});
  if (item.kind == DSE_MODEL)
    facts.push_back({"architectures", fmt::format("{}", fmt::join(item.architectures(), ", "))});
  if (item.kind == DSE_KERNEL) facts.push_back({"operation", item.operation()});
  text += aligned(facts, "  ");
  if (item.options.empty()) return text + "  no options\n";
  std::vector<Row> rows{{"OPTION", "TYPE", "DEFAULT", "RANGE", "HELP"}};
  for (const auto& option : item.options)
    rows.push_back({option.name, option_type_name(option.type),
                    option.default_value ? option.default_value : "(required)", option_domain(option), option.help});
  return text + '\n' + aligned(rows, "  ");
}

std::string describe_items(const PluginRegistry& registry, const std::string& name) {
  std::string text;
  for (const Item* item : registry.require_named(name)) text += (text.empty() ? "" : "\n") + describe_item(*item);
  return text;
}

}  // namespace dsengine
