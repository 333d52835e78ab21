#include "plugin/new_plugin.h"

#include <algorithm>
#include <map>

#include "base/check.h"
#include "base/directory.h"
#include "base/json.h"
#include "base/own_folder.h"

namespace dsengine {

namespace fs = std::filesystem;

namespace {

// my_algorithm -> MyAlgorithm.
std::string type_name(const std::string& name) {
  std::string type;
  bool upper = true;
  for (const char c : name) {
    if (c == '_') {
      upper = true;
      continue;
    }
    type += upper && c >= 'a' && c <= 'z' ? char(c - 'a' + 'A') : c;
    upper = false;
  }
  return type;
}

std::string filled(std::string text, const std::map<std::string, std::string>& values) {
  for (const auto& [key, value] : values)
    for (size_t at = 0; (at = text.find(key, at)) != text.npos; at += value.size()) text.replace(at, key.size(), value);
  return text;
}

std::string use_of(const std::string& kind, const std::string& name) {
  if (kind == "algorithm") return "Run it: `dsengine --plugin-path build --plugin " + name + "`.";
  if (kind == "reward") return "Use it: `reward = { plugin = \"" + name + "\" }` in a stage.";
  if (kind == "dataset") return "Use it: `data.sources = [{ reader = \"" + name + "\", path = \"…\" }]`.";
  if (kind == "model") return "It serves directories whose config.json names its architecture.";
  return "It serves its operation wherever it is loaded; the log names the winner.";
}

}  // namespace

fs::path templates_folder() { return shared_files() / "templates"; }

void write_new_plugin(const std::string& name, const std::string& kind, const fs::path& folder,
                      const fs::path& templates) {
  const auto plain = [](char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_'; };
  DSE_CHECK_USER(!name.empty() && name[0] >= 'a' && name[0] <= 'z' && std::all_of(name.begin(), name.end(), plain),
                 "'{}' is no name for a plugin: small letters, digits and '_', a letter first", name);
  const fs::path source = templates / (kind + ".cpp.in");
  DSE_CHECK_USER(fs::exists(source), "no template for the kind '{}': one of algorithm, model, dataset, reward, kernel",
                 kind);
  DSE_CHECK_USER(!fs::exists(folder), "{} is there already: choose another --output", folder.string());
  make_directories(folder);
  const std::map<std::string, std::string> values{
      {"@NAME@", name}, {"@TYPE@", type_name(name)}, {"@KIND@", kind}, {"@USE@", use_of(kind, name)}};
  write_text(folder / (name + ".cpp"), filled(read_text(source), values));
  for (const char* file : {"CMakeLists.txt", "README.md"})
    write_text(folder / file, filled(read_text(templates / (std::string(file) + ".in")), values));
}

}  // namespace dsengine
