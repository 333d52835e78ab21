// What `dsengine run` and `dsengine --plugin NAME` have in common.
//
//   add_run_options(app, common);                        // --config, --set, --accept-changes
//   app.parse(argc, argv);
//   if (!common.algorithm.empty()) return run_stages(common);  // the exit status
#pragma once
#include "app/command.h"

namespace dsengine {

// --config and --set; with what only `run` takes beside them.
void add_config_options(CLI::App& app, Common& common);
void add_run_options(CLI::App& app, Common& common);

// Stages of the configuration: every one, or those that common.algorithm names.
int run_stages(const Common& common);

}  // namespace dsengine
