#include "app/report_run.h"

#include <toml++/toml.h>
#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "base/check.h"
#include "base/json.h"
#include "base/printable.h"

namespace dsengine {

namespace {

namespace fs = std::filesystem;

constexpr double kNone = std::numeric_limits<double>::quiet_NaN();

// Calls visit(line, where) for each whole line of a file that may not be there.
template <class Visit>
void for_each_line(const fs::path& file, const Visit& visit) {
  if (!fs::exists(file)) return;
  const std::string text = read_text(file);
  size_t number = 0;
  for (size_t begin = 0, end; (end = text.find('\n', begin)) != std::string::npos; begin = end + 1) {
    const std::string where = fmt::format("{}:{}", file.string(), ++number);
    const Json line = parse_json(std::string_view(text).substr(begin, end - begin), where);
    DSE_CHECK_USER(line.is_object() && line.contains("step") && line["step"].is_number_integer(),
                   "{}: a line of metrics is an object with a whole number 'step'", where);
    visit(line, where);
  }
}

// Adds the line's numbers to the curves of their names, less a prefix.
void add_line(std::vector<Curve>& curves, std::map<std::string, size_t>& index, const Json& line,
              std::string_view prefix) {
  const int64_t step = line["step"].get<int64_t>();
  for (const auto& [key, value] : line.items()) {
    if (key == "step" || (!value.is_number() && !value.is_null())) continue;
    const std::string name = key.starts_with(prefix) ? key.substr(prefix.size()) : key;
    const auto [at, is_new] = index.emplace(name, curves.size());
    if (is_new) curves.push_back({name, {}});
    curves[at->second].points.push_back({step, value.is_null() ? kNone : value.get<double>()});
  }
}

SampleSet samples_of(const Json& line, const std::string& where) {
  SampleSet set{line["step"].get<int64_t>(), {}};
  DSE_CHECK_USER(line["samples"].is_array(), "{}: 'samples' is no list", where);
  for (const Json& sample : line["samples"]) {
    const auto text = [&](const char* key) {
      DSE_CHECK_USER(sample.is_object() && sample.contains(key) && sample[key].is_string(),
                     "{}: a sample is an object with the strings 'prompt' and 'reply'", where);
      return sample[key].get<std::string>();
    };
    AnswerSample read{text("prompt"), text("reply"), kNone, false};
    if (sample.contains("reward") && sample["reward"].is_number()) read.reward = sample["reward"].get<double>();
    if (sample.contains("greedy") && sample["greedy"].is_boolean()) read.greedy = sample["greedy"].get<bool>();
    set.samples.push_back(std::move(read));
  }
  return set;
}

bool is_stage(const fs::path& folder) {
  return fs::exists(folder / "metrics.jsonl") || fs::exists(folder / "eval.jsonl");
}

ReportStage read_stage(const fs::path& folder, const std::string& algorithm) {
  ReportStage stage;
  stage.name = folder.filename().string(), stage.algorithm = algorithm;
  stage.finished = fs::exists(folder / "done.json");
  std::map<std::string, size_t> index;
  for_each_line(folder / "metrics.jsonl", [&](const Json& line, const std::string&) {
    add_line(stage.training, index, line, "");
    stage.steps = line["step"].get<int64_t>();
  });
  index.clear();
  for_each_line(folder / "eval.jsonl", [&](const Json& line, const std::string& where) {
    add_line(stage.evaluation, index, line, "eval_");
    if (!line.contains("samples")) return;
    stage.last = samples_of(line, where);
    if (stage.first.step < 0) stage.first = stage.last;
  });
  return stage;
}

toml::table parse_config(const std::string& text, const fs::path& file) try {
  return toml::parse(text, file.string());
} catch (const toml::parse_error& error) {
  const auto at = error.source().begin;
  throw UserError(error_line("{}:{}:{}: {}", file.string(), at.line, at.column, error.description()));
}

}  // namespace

ReportRun read_run(const fs::path& folder) {
  DSE_CHECK_USER(fs::is_directory(folder), "{} is not a run's folder: {}", folder.string(),
                 fs::exists(folder) ? "it is a file" : "there is no such folder");
  ReportRun run;
  run.folder = folder;
  const fs::path whole = fs::absolute(folder).lexically_normal(), file = folder / "config.toml";
  run.label = (whole.has_filename() ? whole : whole.parent_path()).filename().string();

  std::vector<std::string> others;
  std::error_code error;
  const fs::directory_iterator entries(folder, error);
  DSE_CHECK_USER(!error, "cannot read {}: {}", folder.string(), error.message());
  for (const auto& entry : entries)
    if (entry.is_directory() && is_stage(entry.path())) others.push_back(entry.path().filename().string());
  std::sort(others.begin(), others.end());
  DSE_CHECK_USER(!others.empty() || fs::exists(file),
                 "{} is not a run's folder: it has neither config.toml nor a stage with metrics.jsonl (give the run's "
                 "output_dir)",
                 folder.string());

  if (fs::exists(file)) {
    run.config = read_text(file);
    const toml::table config = parse_config(run.config, file);
    if (const auto seed = config["seed"].value<int64_t>()) run.seed = std::to_string(*seed);
    if (const toml::array* stages = config["stage"].as_array())
      for (const toml::node& node : *stages) {
        const toml::table* table = node.as_table();
        const std::string name = table ? (*table)["name"].value_or(std::string()) : "";
        const auto at = std::find(others.begin(), others.end(), name);
        if (at == others.end()) continue;
        run.stages.push_back(read_stage(folder / name, (*table)["algorithm"].value_or(std::string())));
        others.erase(at);
      }
  }
  for (const auto& name : others) run.stages.push_back(read_stage(folder / name, ""));
  return run;
}

const Curve* find_curve(const std::vector<Curve>& curves, std::string_view name) {
  const auto curve = std::find_if(curves.begin(), curves.end(), [&](const Curve& c) { return c.name == name; });
  return curve == curves.end() ? nullptr : &*curve;
}

}  // namespace dsengine
