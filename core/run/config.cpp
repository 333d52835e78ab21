#include "run/config.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <numeric>
#include <set>

#include "base/check.h"
#include "base/json.h"
#include "base/own_folder.h"
#include "base/printable.h"
#include "run/config_keys.h"
#include "run/config_print.h"
#include "run/config_set.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

// Whether --set gave it.
bool is_set(const toml::node& node) {
  const auto& path = node.source().path;
  return path && is_set_source(*path);
}

std::string where(const toml::node& node) {
  const toml::source_region& source = node.source();
  if (!source.path) return "the configuration";
  return is_set(node) ? *source.path : fmt::format("{}:{}", *source.path, source.begin.line);
}

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

[[noreturn]] void wrong_type(const toml::node& node, const std::string& key, const char* expected) {
  throw UserError(error_line("{}: '{}' expects {}, has {}", where(node), key, expected, type_text(node)));
}

// A relative path means the folder of the file it stands in, or the working directory if --set gave it.
fs::path absolute_path(const toml::node& node, const fs::path& path, bool in_working_directory) {
  if (path.empty()) return path;
  const auto& file = node.source().path;
  const bool of_file = file && !is_set(node) && !in_working_directory;
  const fs::path folder = of_file ? fs::absolute(*file).parent_path() : fs::current_path();
  return (folder / path).lexically_normal();
}

// Fills the structs of a configuration from a TOML tree; a visitor of run/config_keys.h. What is absent
// keeps its value.
class Reader {
 public:
  explicit Reader(const toml::table& root) {
    levels_.push_back({&root, "", "", {}, nullptr});
    if (const toml::array* stages = root["stage"].as_array())
      for (const toml::node& stage : *stages)
        if (const toml::table* table = stage.as_table()) stage_names_.insert((*table)["name"].value_or(std::string()));
  }

  template <class T>
  void value(std::string_view name, T& out, std::string_view, const Limits& limits = {}) {
    const toml::node* node = take(name);
    if (const toml::node* older = limits.formerly ? take(limits.formerly) : nullptr) {
      DSE_CHECK_USER(!node || is_set(*node) != is_set(*older), "{}: '{}' and its older name '{}' are both given",
                     where(*older), key(name), limits.formerly);
      spdlog::warn("key_renamed key={} now={} note=\"{}: the older name is taken until 1.0\"", key(limits.formerly),
                   name, where(*older));
      if (!node || is_set(*older)) node = older;  // --set goes over the file under either name
    }
    DSE_CHECK_USER(node || !limits.required, "{}: missing key '{}'", where(*level().table), key(name));
    if (node) read(*node, key(name), out, limits);
  }

  void model(std::string_view name, std::string& out, std::string_view) {
    const toml::node* node = take(name);
    if (!node) return;
    read(*node, key(name), out, {});
    if (!stage_names_.count(out)) out = absolute_path(*node, out, false).string();
  }

  void paths(std::string_view name, std::vector<fs::path>& out, std::string_view) {
    read_array(name, out, "an array of strings", {});
  }

  void numbers(std::string_view name, std::vector<double>& out, std::string_view, const Limits& limits) {
    read_array(name, out, "an array of numbers", limits);
  }

  template <class Body>
  void table(std::string_view name, std::string_view, const Body& body) {
    const toml::node* node = take(name);
    if (!node) return;
    if (!node->is_table()) wrong_type(*node, key(name), "a table");
    inside(*node->as_table(), std::string(name), body);
  }

  template <class T>
  void list(std::string_view name, std::vector<T>& out, const T& prototype, std::string_view) {
    const toml::node* node = take(name);
    if (!node) return;
    if (!node->is_array()) wrong_type(*node, key(name), "an array of tables");
    out.clear();
    for (const toml::node& item : *node->as_array()) {
      if (!item.is_table()) wrong_type(item, fmt::format("{}[{}]", key(name), out.size()), "a table");
      const toml::table& table = *item.as_table();
      const auto own_name = table["name"].value<std::string>();
      T& element = out.emplace_back(prototype);
      inside(
          table, own_name ? fmt::format("{}.{}", name, *own_name) : fmt::format("{}[{}]", name, out.size() - 1),
          [&] { describe(*this, element); }, /*is_stage=*/std::is_same_v<T, StageConfig>);
    }
  }

  void plugin_key(std::string_view, const char*, const char*, std::string_view) {}  // read with the options
  void options(OptionValues& out, std::string_view) { level().rest = &out; }

  void named_options(std::string_view name, std::map<std::string, OptionValues>& out, std::string_view help) {
    table(name, help, [&] {
      for (const auto& [key, node] : *level().table)
        table(key.str(), help, [&, group = std::string(key.str())] { options(out[group], help); });
    });
  }

  template <class Body>
  void shared(const Body& body) {
    body();
  }

  // Every key of the present table must have been asked for by now, or be an option.
  void finish_table() {
    for (const auto& [name, node] : *level().table) {
      if (level().known.count(name.str())) continue;
      if (!level().rest) unknown_key(name.str(), node);
      read_option(node, key(name.str()), (*level().rest)[std::string(name.str())]);
    }
  }

 private:
  struct Level {
    const toml::table* table;
    std::string prefix;  // "stage.ppo.rollout."
    std::string stage;   // "stage.ppo.", what of the prefix a suggestion leaves out
    std::set<std::string, std::less<>> known;
    OptionValues* rest;  // takes the keys that are not known
  };

  Level& level() { return levels_.back(); }
  std::string key(std::string_view name) { return level().prefix + std::string(name); }

  const toml::node* take(std::string_view name) {
    level().known.emplace(name);
    return level().table->get(name);
  }

  template <class T>
  void read_array(std::string_view name, std::vector<T>& out, const char* expected, const Limits& limits) {
    const toml::node* node = take(name);
    if (!node) return;
    if (!node->is_array()) wrong_type(*node, key(name), expected);
    out.clear();
    for (const toml::node& item : *node->as_array()) {
      const std::string item_key = fmt::format("{}[{}]", key(name), out.size());
      read(item, item_key, out.emplace_back(), limits);
    }
  }

  template <class Body>
  void inside(const toml::table& table, const std::string& name, const Body& body, bool is_stage = false) {
    const std::string prefix = key(name) + ".";
    levels_.push_back({&table, prefix, is_stage ? prefix : level().stage, {}, nullptr});
    body();
    finish_table();
    levels_.pop_back();
  }

  [[noreturn]] void unknown_key(std::string_view name, const toml::node& node) {
    const Level& at = level();
    const std::string near = nearest_name(name, {at.known.begin(), at.known.end()});
    throw UserError(
        error_line("{}: unknown key '{}'{}", where(node), key(name),
                   near.empty() ? key_suggestion(key(name).substr(at.stage.size()), at.stage.empty() ? "" : "stage[].")
                                : fmt::format("; did you mean '{}'?", key(near))));
  }

  static void check_range(const toml::node& node, const std::string& key, double value, const Limits& limits) {
    const bool inside = value >= limits.min && value <= limits.max && std::isfinite(value) && (value > limits.above) &&
                        (value < limits.below);
    const std::string range = range_text(limits);
    DSE_CHECK_USER(inside, "{}: '{}' must be {}, is {}", where(node), key, range.empty() ? "finite" : range, value);
  }

  static void read(const toml::node& node, const std::string& key, bool& out, const Limits&) {
    if (!node.is_boolean()) wrong_type(node, key, "true or false");
    out = **node.as_boolean();
  }

  static void read(const toml::node& node, const std::string& key, int64_t& out, const Limits& limits) {
    if (!node.is_integer()) wrong_type(node, key, "an integer");
    out = **node.as_integer();
    check_range(node, key, static_cast<double>(out), limits);
    // Sums and products of counts stay within 64 bits.
    DSE_CHECK_USER(out <= kMostCount || limits.max != Limits::none, "{}: '{}' must be at most {}, is {}", where(node),
                   key, kMostCount, out);
  }

  static void read(const toml::node& node, const std::string& key, uint64_t& out, const Limits& limits) {
    if (!node.is_integer()) wrong_type(node, key, "an integer");
    const int64_t value = **node.as_integer();
    check_range(node, key, static_cast<double>(value), limits);
    out = static_cast<uint64_t>(value);
  }

  static void read(const toml::node& node, const std::string& key, double& out, const Limits& limits) {
    if (!node.is_number()) wrong_type(node, key, "a number");
    const auto value = node.value<double>();
    DSE_CHECK_USER(value, "{}: '{}' is {}, which no floating-point number holds exactly", where(node), key,
                   **node.as_integer());
    out = *value;
    check_range(node, key, out, limits);
  }

  static void read(const toml::node& node, const std::string& key, std::string& out, const Limits& limits) {
    if (!node.is_string()) wrong_type(node, key, "a string");
    out = **node.as_string();
    const auto& choices = limits.choices;
    const bool chosen = choices.empty() || std::find(choices.begin(), choices.end(), out) != choices.end();
    DSE_CHECK_USER(chosen, "{}: '{}' must be {}, is '{}'", where(node), key, range_text(limits), out);
    const bool may_be_empty = !limits.required && !limits.non_empty;
    DSE_CHECK_USER(may_be_empty || !out.empty(), "{}: '{}' is empty", where(node), key);
  }

  template <Choice E>
  static void read(const toml::node& node, const std::string& key, E& out, const Limits&) {
    std::string name;
    read(node, key, name, limits_of<E>());
    out = *choice_named<E>(name);
  }

  template <class T>
  static void read(const toml::node& node, const std::string& key, std::vector<T>& out, const Limits& limits) {
    if (!node.is_array())
      wrong_type(node, key, std::is_same_v<T, int64_t> ? "an array of integers" : "an array of strings");
    out.clear();
    for (const toml::node& item : *node.as_array()) {
      const std::string item_key = fmt::format("{}[{}]", key, out.size());
      read(item, item_key, out.emplace_back(), limits);
    }
  }

  static void read(const toml::node& node, const std::string& key, fs::path& out, const Limits& limits) {
    std::string text;
    read(node, key, text, limits);
    out = absolute_path(node, text, limits.in_working_directory);
  }

  static void read_option(const toml::node& node, const std::string& key, OptionValue& out) {
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

  std::vector<Level> levels_;
  std::set<std::string> stage_names_;
};

toml::table parse_file(const fs::path& file) {
  const std::string text = read_text(file);
  try {
    return toml::parse(text, file.string());
  } catch (const toml::parse_error& error) {
    const auto at = error.source().begin;
    throw UserError(error_line("{}:{}:{}: {}", file.string(), at.line, at.column, error.description()));
  }
}

// What no single key can tell: that stages can be told apart, and come after those they start from.
void check_stages(const RunConfig& config, const toml::table& root, const fs::path& file) {
  DSE_CHECK_USER(!config.stages.empty(), "{}: no [[stage]]: a run needs one, with name and algorithm", file.string());
  std::set<std::string> earlier, all;
  for (const StageConfig& stage : config.stages) all.insert(stage.name);
  for (size_t i = 0; i < config.stages.size(); ++i) {
    const StageConfig& stage = config.stages[i];
    const std::string place = where(*(*root["stage"].as_array())[i].as_table()->get("name"));
    const auto is_plain = [](unsigned char c) { return std::isalnum(c) || c == '_' || c == '-'; };
    DSE_CHECK_USER(std::all_of(stage.name.begin(), stage.name.end(), is_plain),
                   "{}: stage name '{}' may have letters, digits, - and _ only, for it names a folder", place,
                   stage.name);
    const auto& split = stage.data.split;
    const bool divides = split.size() > 1 && std::accumulate(split.begin(), split.end(), 0.0) > 0;
    DSE_CHECK_USER(divides || split.empty(), "{}: stage '{}': data.split needs two shares or more, not all of them 0",
                   place, stage.name);
    DSE_CHECK_USER(!earlier.count(stage.name), "{}: stage name '{}' is taken by an earlier stage", place, stage.name);
    std::vector<const std::string*> froms{&stage.actor.from, &stage.critic.from, &stage.reference.from,
                                          &stage.reward.from};
    for (const auto& reward : stage.rewards) froms.push_back(&reward.from);
    for (const std::string* from : froms)
      DSE_CHECK_USER(!all.count(*from) || earlier.count(*from),
                     "{}: stage '{}' takes a model from stage '{}', which does not come before it (for a folder, "
                     "write './{}')",
                     place, stage.name, *from, *from);
    earlier.insert(stage.name);
  }
}

}  // namespace

RunConfig load_config(const fs::path& file, const std::vector<std::string>& sets) {
  toml::table root = parse_file(file);
  for (const std::string& set : sets) apply_set(root, set);
  RunConfig config;
  config.output_dir = fs::absolute(config.output_dir);
  Reader reader(root);
  describe(reader, config);
  reader.finish_table();
  check_stages(config, root, file);
  config.resolved = toml_text(config);
  return config;
}

fs::path built_in_config() {
  constexpr const char* name = "rlhf_tiny.toml";
  const char* share = std::getenv("DSENGINE_SHARE");
  const fs::path folder = share ? fs::path(share) : shared_files() / "examples";
  DSE_CHECK_USER(fs::is_regular_file(folder / name), "no built-in configuration {}: give --config",
                 (folder / name).string());
  return folder / name;
}

}  // namespace dsengine
