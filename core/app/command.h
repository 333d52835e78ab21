// The commands of the program: a file each, and a table of them in program.cpp.
//
//   Common common;
//   const Body body = define_commands(app, kCommands, common);  // {"chat", "talk to a model", define_chat}, …
//   app.parse(argc, argv);
//   return body();  // runs the command that was given, and returns the exit status
//
// A command declares its options when it is defined, and reads them when its body runs. Bodies keep a reference to
// `common`.
#pragma once
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <vector>

namespace CLI {
class App;
}

namespace dsengine {

// The exit status of a run whose ranks lost one of them: the same command goes on from the newest checkpoint.
inline constexpr int kRankLostStatus = 75;

// What may stand before a command.
struct Common {
  std::vector<std::filesystem::path> plugin_path;
  std::string algorithm, config;  // from here on: of `run` alone. algorithm: --plugin; config "": the default
  std::vector<std::string> sets;
  bool accept_changes = false;
};

using Body = std::function<int()>;

struct Command {
  const char* name;
  const char* help;
  Body (*define)(CLI::App& app, Common& common);
};

// Adds the commands to `app` in the table's order. The body runs the first one that was given: there must be one.
Body define_commands(CLI::App& app, std::span<const Command> commands, Common& common);

Body define_run(CLI::App& app, Common& common);
Body define_launch(CLI::App& app, Common& common);
Body define_score(CLI::App& app, Common& common);
Body define_generate(CLI::App& app, Common& common);
Body define_tokenize(CLI::App& app, Common& common);
Body define_chat(CLI::App& app, Common& common);
Body define_report(CLI::App& app, Common& common);
Body define_eval(CLI::App& app, Common& common);
Body define_plan(CLI::App& app, Common& common);
Body define_bench(CLI::App& app, Common& common);
Body define_export(CLI::App& app, Common& common);
Body define_reference(CLI::App& app, Common& common);
Body define_plugins(CLI::App& app, Common& common);

}  // namespace dsengine
