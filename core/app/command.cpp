#include "app/command.h"

#include <CLI/CLI.hpp>
#include <map>

namespace dsengine {

Body define_commands(CLI::App& app, std::span<const Command> commands, Common& common) {
  std::map<const CLI::App*, Body> bodies;
  for (const auto& command : commands) {
    CLI::App& own = *app.add_subcommand(command.name, command.help);
    bodies[&own] = command.define(own, common);
  }
  return [&app, bodies = std::move(bodies)] { return bodies.at(app.get_subcommands().at(0))(); };
}

}  // namespace dsengine
