#include "run/config_set.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "base/json.h"
#include "base/printable.h"
#include "run/config_print.h"

namespace dsengine {
namespace {

constexpr std::string_view kSetPrefix = "--set ";
constexpr const char* kStage = "stage[].";

struct Assignment {
  std::string source;  // the whole "--set key=value"
  std::string key, text;
  bool wants_string = false;
};

std::string_view last_part(std::string_view key) { return key.substr(key.rfind('.') + 1); }

// The row of `key` within a scope; an option (a * row) takes any name.
const KeyRow* find_row(const std::vector<KeyRow>& rows, const std::string& scope, const std::string& key) {
  const std::string path = scope + key;
  const auto matches = [&](const KeyRow& row) {
    const auto any = row.path.find('*');
    return any == std::string::npos ? row.path == path
                                    : path.size() > any && path.compare(0, any, row.path, 0, any) == 0;
  };
  const auto row = std::find_if(rows.begin(), rows.end(), matches);
  return row == rows.end() ? nullptr : &*row;
}

// Parsed anew for every place it goes to: toml++ keeps a node's source when it is moved, not when copied.
toml::table parse_value(const Assignment& set) {
  const auto parse = [&](const std::string& text) { return toml::parse("value = " + text, set.source); };
  try {
    toml::table parsed = parse(set.text);
    // A line break in the text could add more keys: then it was never one TOML value.
    if (parsed.size() == 1 && (!set.wants_string || parsed["value"].is_string())) return parsed;
  } catch (const toml::parse_error& error) {
    const auto first = set.text.find_first_not_of(" \t");
    const bool bracketed = first != std::string::npos && (set.text[first] == '[' || set.text[first] == '{');
    DSE_CHECK_USER(!bracketed || set.wants_string, "{}: not valid TOML: {}", set.source, error.description());
  }
  try {
    return parse(toml_value(set.text));
  } catch (const toml::parse_error& error) {
    throw UserError(error_line("{}: not valid text: {}", set.source, error.description()));
  }
}

// Moves `node` to table[name]; a table into a table key by key.
void merge(toml::table& table, std::string_view name, toml::node&& node) {
  toml::table* old = table[name].as_table();
  toml::table* added = node.as_table();
  if (!old || !added) {
    table.insert_or_assign(name, std::move(node));
    return;
  }
  for (auto&& [key, value] : *added) merge(*old, key.str(), std::move(value));
}

void assign(toml::table& root, const Assignment& set) {
  toml::table* table = &root;
  std::string_view rest = set.key;
  for (auto dot = rest.find('.'); dot != std::string_view::npos; dot = rest.find('.')) {
    const std::string_view name = rest.substr(0, dot);
    if (!table->contains(name)) table->insert(name, toml::table{});
    toml::node* inner = table->get(name);
    DSE_CHECK_USER(inner->is_table(), "{}: '{}' is not a table in the file", set.source, name);
    table = inner->as_table();
    rest.remove_prefix(dot + 1);
  }
  toml::table value = parse_value(set);
  merge(*table, rest, std::move(*value.get("value")));
}

// A learning rate set for a stage goes before what the file says for its roles.
void assign_in_stage(toml::table& stage, const Assignment& set, const std::vector<KeyRow>& rows) {
  assign(stage, set);
  if (set.key.find('.') != std::string::npos) return;
  for (const std::string role : {"actor", "critic"})
    if (toml::table* table = stage[role].as_table(); table && find_row(rows, "stage[]." + role + ".", set.key))
      table->erase(set.key);
}

std::vector<toml::table*> stages_of(toml::table& root) {
  std::vector<toml::table*> stages;
  if (toml::array* array = root["stage"].as_array())
    for (toml::node& node : *array)
      if (node.is_table()) stages.push_back(node.as_table());
  return stages;
}

// Those that a set for every stage reaches. Options of a plugin go where it is used, so that no other stage's
// settings change; to all stages if that cannot be told.
std::vector<toml::table*> stages_with(toml::table& root, std::string_view key) {
  std::vector<toml::table*> stages = stages_of(root);
  if (!key.starts_with("plugin.")) return stages;
  std::string_view plugin = key.substr(7);
  plugin = plugin.substr(0, plugin.find('.'));
  std::vector<toml::table*> users;
  for (toml::table* stage : stages)
    if ((*stage)["algorithm"].value_or(std::string()) == plugin || (*stage)["plugin"][plugin]) users.push_back(stage);
  return users.empty() ? stages : users;
}

toml::table& stage_named(toml::table& root, const std::string& name, const std::string& source) {
  std::vector<std::string> names;
  for (toml::table* stage : stages_of(root)) {
    names.push_back((*stage)["name"].value_or(std::string()));
    if (names.back() == name) return *stage;
  }
  const std::string near = nearest_name(name, names);
  throw UserError(error_line("{}: no stage '{}'; {}", source, name,
                             near.empty() ? fmt::format("the stages are {}", fmt::join(names, ", "))
                                          : fmt::format("did you mean '{}'?", near)));
}

}  // namespace

bool is_set(const toml::node& node) {
  const auto& path = node.source().path;
  return path && path->starts_with(kSetPrefix);
}

std::string key_suggestion(std::string_view key, std::string_view scope) {
  const std::vector<KeyRow> rows = config_key_rows();
  std::vector<std::string> known;
  for (const KeyRow& row : rows)
    if (row.path.starts_with(scope) && row.path.find_first_of("[*", scope.size()) == std::string::npos)
      known.push_back(row.path.substr(scope.size()));
  std::string near;  // the name may be right and only its table missing
  for (const auto& name : known)
    if (near.empty() && last_part(name) == last_part(key)) near = name;
  if (near.empty()) near = nearest_name(key, known);
  if (!near.empty()) return fmt::format("; did you mean '{}'?", near);
  if (scope.empty() && find_row(rows, kStage, std::string(key))) return "; it is a key of a [[stage]]";
  return key.find('.') == std::string_view::npos ? "; an option of a plugin goes under plugin.<its name>" : "";
}

void apply_set(toml::table& root, const std::string& set) {
  const auto equals = set.find('=');
  DSE_CHECK_USER(equals != std::string::npos && equals > 0, "{}{}: give it as key=value", kSetPrefix, set);
  const std::vector<KeyRow> rows = config_key_rows();
  Assignment assignment{
      .source = std::string(kSetPrefix) + set, .key = set.substr(0, equals), .text = set.substr(equals + 1)};
  const auto row_of = [&](const std::string& scope) {
    const KeyRow* row = find_row(rows, scope, assignment.key);
    if (row) assignment.wants_string = row->wants_string;
    return row != nullptr;
  };
  const auto unknown = [&](std::string_view scope) {
    return UserError(fmt::format("{}: unknown key '{}'{}", assignment.source, assignment.key,
                                 key_suggestion(assignment.key, scope)));
  };

  if (assignment.key.starts_with("stage.")) {
    const auto dot = assignment.key.find('.', 6);
    DSE_CHECK_USER(dot != std::string::npos, "{}: give it as stage.<name>.<key>", assignment.source);
    toml::table& stage = stage_named(root, assignment.key.substr(6, dot - 6), assignment.source);
    assignment.key.erase(0, dot + 1);
    if (!row_of(kStage)) throw unknown(kStage);
    assign_in_stage(stage, assignment, rows);
  } else if (row_of(kStage)) {
    for (toml::table* stage : stages_with(root, assignment.key)) assign_in_stage(*stage, assignment, rows);
  } else if (row_of("")) {
    assign(root, assignment);
  } else {
    const bool of_run = key_suggestion(assignment.key, "").find("did you mean") != std::string::npos;
    throw unknown(of_run ? "" : kStage);
  }
}

}  // namespace dsengine
