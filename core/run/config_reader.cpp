#include "run/config_reader.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <toml++/toml.h>

#include <algorithm>
#include <cctype>
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
#include "run/config_value.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

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
    if (node) read_value(*node, key(name), out, limits);
  }

  void model(std::string_view name, std::string& out, std::string_view) {
    const toml::node* node = take(name);
    if (!node) return;
    read_value(*node, key(name), out, {});
    if (!stage_names_.count(out)) out = absolute_path(*node, out, false).string();
  }

  void paths(std::string_view name, std::vector<fs::path>& out, std::string_view) {
    if (const toml::node* node = take(name)) read_array(*node, key(name), out, "an array of strings", {});
  }

  void numbers(std::string_view name, std::vector<double>& out, std::string_view, const Limits& limits) {
    if (const toml::node* node = take(name)) read_array(*node, key(name), out, "an array of numbers", limits);
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
      read_value(node, key(name.str()), (*level().rest)[std::string(name.str())]);
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

void set_keys(StageConfig& stage, const std::vector<std::string>& sets) {
  toml::table root{{"stage", toml::array{toml::table{{"name", stage.name}, {"algorithm", stage.algorithm}}}}};
  for (const std::string& set : sets) {
    apply_set(root, set);
    DSE_CHECK_USER(root.size() == 1, "--set {}: no key of a stage", set);
  }
  Reader reader(*(*root["stage"].as_array())[0].as_table());
  describe(reader, stage);
  reader.finish_table();
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
