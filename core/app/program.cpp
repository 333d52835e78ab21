// dsengine: the command line, as a library that the program loads (main.cpp).
#include <c10/util/Exception.h>

#include <CLI/CLI.hpp>
#include <filesystem>
#include <iostream>

#include "app/command.h"
#include "app/run_command.h"
#include "base/check.h"
#include "base/printable.h"
#include "comm/world.h"
#include "files/output_file.h"
#include "memory/ledger.h"
#include "run/logging.h"

namespace dsengine {
namespace {

constexpr Command kCommands[] = {
    {"run", "every [[stage]] of a configuration in turn", define_run},
    {"launch", "a run on several ranks: starts, watches and restarts them", define_launch},
    {"score", "log-probabilities of texts, or rewards", define_score},
    {"generate", "answers to prompts", define_generate},
    {"tokenize", "text to ids and back", define_tokenize},
    {"chat", "talk to a model", define_chat},
    {"report", "curves, times and answers of runs, as one page of HTML", define_report},
    {"eval", "held-out loss, a reward model's accuracy, mean rewards, answers side by side", define_eval},
    {"plan", "the memory and the time that a run will need, before it begins", define_plan},
    {"bench", "how fast generation, training and products are on this machine", define_bench},
    {"export", "a model, an adapter merged, or a stage's result as a Hugging Face folder", define_export},
    {"reference", "every key of a configuration, as docs/config.md has it", define_reference},
    {"plugins", "what is installed", define_plugins},
};

// --plugin-path, before a command or behind it, and more than once.
void add_plugin_path_options(CLI::App& app, Common& common) {
  const auto add = [&common](const std::vector<std::string>& folders) {
    common.plugin_path.insert(common.plugin_path.end(), folders.begin(), folders.end());
  };
  app.add_option_function<std::vector<std::string>>("--plugin-path", add, "folder searched for plugins first")
      ->allow_extra_args(false);
  for (CLI::App* command : app.get_subcommands({})) add_plugin_path_options(*command, common);
}

void check_options_before_command(const CLI::App& app, const Common& common) {
  const auto given = app.get_subcommands();
  const bool fits = given.empty() || given.front()->get_name() == "run";  // the first is the one that runs
  DSE_CHECK_USER(common.algorithm.empty() || fits,
                 "--plugin runs an algorithm and takes no command beside it but 'run'");
  for (const char* option : {"--config", "--set", "--accept-changes"})
    DSE_CHECK_USER(app.count(option) == 0 || fits,
                   "{} before a command belongs to 'run': give it behind the command that takes it", option);
}

// UserError: they fit no command, or not what has been started.
void check_options(const CLI::App& app, const Common& common) {
  check_options_before_command(app, common);
  const auto given = app.get_subcommands();
  DSE_CHECK_USER(given.empty() || given.front()->get_name() == "run" || world_place().by != WorldPlace::By::mpi,
                 "'{}' is not shared out over ranks: start it without mpirun or srun", given.front()->get_name());
}

int run(int argc, char** argv) {
  CLI::App app{"dsengine teaches language models from human preference"};
  app.set_version_flag("--version", "dsengine 0.1.0");
  Common common;
  app.add_option("--plugin", common.algorithm, "run this algorithm (of the configuration, or of the built-in default)");
  add_run_options(app, common);
  const Body command = define_commands(app, kCommands, common);
  app.require_subcommand(0, 1);  // so that a command in what `launch` is to start is no second one
  add_plugin_path_options(app, common);
  try {
    app.parse(argc, argv);
    check_options(app, common);
  } catch (const CLI::Success& e) {  // --help, --version
    return app.exit(e);
  } catch (const std::exception& e) {
    if (told_by_rank_0()) throw ToldElsewhere();
    if (dynamic_cast<const UserError*>(&e)) throw;
    throw UserError(error_line("{} (see --help)", e.what()));
  }
  set_up_logging({.level = LogLevel::info, .file = {}, .quiet = told_by_rank_0()});
  if (!app.get_subcommands().empty()) return command();
  if (!common.algorithm.empty()) return run_stages(common);
  std::cout << app.help();
  return 1;
}

}  // namespace
}  // namespace dsengine

extern "C" [[gnu::visibility("default")]] int dsengine_program(int argc, char** argv) {
  try {
    const int status = dsengine::run(argc, argv);
    std::cout.flush();
    DSE_CHECK_USER(std::cout.good(), "standard output cannot be written to");
    return status;
  } catch (const dsengine::ClosedPipe&) {  // nobody is left to be told
  } catch (const dsengine::ToldElsewhere&) {
    dsengine::wait_to_be_ended();
  } catch (const dsengine::RankLost& e) {
    std::cerr << "dsengine: error: " << dsengine::printable_line(e.what()) << "\n";
    return dsengine::kRankLostStatus;
  } catch (const dsengine::UserError& e) {
    std::cerr << "dsengine: error: " << dsengine::printable_line(e.what()) << "\n";
  } catch (const c10::Error& e) {
    const std::string what = dsengine::printable_line(e.what_without_backtrace());
    const bool memory =
        what.find("llocate") != what.npos;  // "can't allocate memory", "DefaultCPUAllocator: not enough"
    std::cerr << "dsengine: " << (memory ? "error: not enough memory for this: " : "internal error: ") << what << "\n";
  } catch (const std::filesystem::filesystem_error& e) {
    std::cerr << "dsengine: error: "
              << dsengine::shown(e.path1().string() + (e.path1().empty() ? "" : ": ") + e.code().message(), 1000)
              << "\n";
  } catch (const dsengine::OutOfMemory& e) {
    std::cerr << "dsengine: error: " << e.what() << "\n";
  } catch (const std::bad_alloc&) {  // outside of tensors
    std::cerr << "dsengine: error: not enough memory for this beside the tensors, of which the most was held of: "
              << dsengine::Ledger::host().most_held() << "\n";
  } catch (const std::exception& e) {
    std::cerr << "dsengine: internal error: " << dsengine::printable_line(e.what()) << "\n";
  }
  return 1;
}
