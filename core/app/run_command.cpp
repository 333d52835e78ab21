#include "app/run_command.h"

#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <csignal>

#include "app/json_keys.h"
#include "engine/engine.h"
#include "files/hf_directory.h"

namespace dsengine {

void add_config_options(CLI::App& app, Common& common) {
  app.add_option("--config", common.config, "TOML file; none: the built-in default");
  app.add_option("--set", common.sets, "key=value, over the file")->allow_extra_args(false);
}

void add_run_options(CLI::App& app, Common& common) {
  add_config_options(app, common);
  app.add_flag("--accept-changes", common.accept_changes,
               "go on where a model, a record, a plugin or an output is another than a stage remembers");
}

int run_stages(const Common& common) {
  std::signal(SIGPIPE, SIG_IGN);  // a log whose reader is gone ends no run, after its last step neither
  const auto end = dse::run({common.config, common.sets, common.algorithm, common.plugin_path, common.accept_changes});
  if (end.signal != 0) return 128 + end.signal;  // as shells count
  const bool reward = stored_kind(end.model) == ModelKind::value;
  spdlog::info("done model={} note=\"try: dsengine {} {}\"", end.model.string(),
               reward ? "score --reward" : "chat --model", end.model.string());
  return 0;
}

Body define_run(CLI::App& app, Common& common) {
  add_run_options(app, common);
  app.footer(kRunKeys);
  return [&common] { return run_stages(common); };
}

}  // namespace dsengine
