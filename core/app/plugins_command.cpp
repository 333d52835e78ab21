#include <CLI/CLI.hpp>
#include <iostream>

#include "app/command.h"
#include "engine/session.h"
#include "generate/verify_model.h"
#include "plugin/list.h"
#include "plugin/new_plugin.h"
#include "plugin/verify.h"

namespace dsengine {

namespace {

Body define_list(CLI::App&, Common& common) {
  return [&common] {
    set_up_threads(0);
    std::cout << list_plugins(PluginRegistry(common.plugin_path));
    return 0;
  };
}

Body define_info(CLI::App& app, Common& common) {
  auto name = std::make_shared<std::string>();
  app.add_option("name", *name)->required();
  return [name, &common] {
    set_up_threads(0);
    std::cout << describe_items(PluginRegistry(common.plugin_path), *name);
    return 0;
  };
}

struct VerifyOptions {
  std::string name, config;
};

Body define_verify(CLI::App& app, Common& common) {
  auto o = std::make_shared<VerifyOptions>();
  app.add_option("name", o->name)->required();
  app.add_option("--config", o->config, "config.json to try a model with; none: a small general one");
  return [o, &common] {
    set_up_threads(0);
    const PluginRegistry registry(common.plugin_path);
    const Json config = o->config.empty() ? Json() : read_json(o->config);
    const auto checks = verify(registry, o->name, model_verify_hooks(config));
    std::cout << format_checks(checks);
    return all_ok(checks) ? 0 : 1;
  };
}

struct NewOptions {
  std::string name, kind, output;
};

Body define_new(CLI::App& app, Common&) {
  auto o = std::make_shared<NewOptions>();
  app.add_option("name", o->name)->required();
  app.add_option("--kind", o->kind, "algorithm, model, dataset, reward or kernel")->required();
  app.add_option("--output", o->output, "the folder; none: the plugin's name");
  return [o] {
    const std::string& folder = o->output.empty() ? o->name : o->output;
    write_new_plugin(o->name, o->kind, folder, templates_folder());
    std::cout << folder << ": see README.md in it\n";
    return 0;
  };
}

constexpr Command kParts[] = {
    {"list", "all items", define_list},
    {"info", "an item and its options", define_info},
    {"verify", "try an item, or a file", define_verify},
    {"new", "a folder with a plugin that builds, to begin from", define_new},
};

}  // namespace

Body define_plugins(CLI::App& app, Common& common) {
  app.require_subcommand(1);
  return define_commands(app, kParts, common);
}

}  // namespace dsengine
