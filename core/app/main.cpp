// dsengine: the command line.
#include <c10/util/Exception.h>
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <csignal>
#include <filesystem>
#include <iostream>

#include "app/commands.h"
#include "app/eval_command.h"
#include "app/json_keys.h"
#include "app/report.h"
#include "base/check.h"
#include "base/printable.h"
#include "engine/session.h"
#include "files/output_file.h"
#include "model/model_files.h"
#include "model/verify_model.h"
#include "plugin/list.h"
#include "plugin/new_plugin.h"
#include "plugin/verify.h"
#include "run/config.h"
#include "run/logging.h"
#include "run/metric_table.h"

namespace dsengine {
namespace {

// --plugin NAME or run: stages of a configuration.
int run_stages(const std::string& algorithm, const std::string& config, const std::vector<std::string>& sets,
               const std::vector<std::filesystem::path>& plugin_path, bool accept_changes) {
  std::signal(SIGPIPE, SIG_IGN);  // a log whose reader is gone ends no run, after its last step neither
  const auto end = dse::run({config, sets, algorithm, plugin_path, accept_changes});
  if (end.signal != 0) return 128 + end.signal;  // as shells count
  const bool reward = stored_kind(end.model) == ModelKind::value;
  spdlog::info("done model={} note=\"try: dsengine {} {}\"", end.model.string(),
               reward ? "score --reward" : "chat --model", end.model.string());
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app{"dsengine teaches language models from human preference"};
  app.set_version_flag("--version", "dsengine 0.1.0");
  std::string plugin, config, reward, dtype = "fp32", name;
  std::vector<std::string> sets;
  ExportOptions exported;
  EvalOptions evaluated;
  std::vector<std::filesystem::path> plugin_path;
  int64_t threads = 0;
  bool accept_changes = false;
  LineFiles files;
  ModelFolder model;
  dse::Sampling sampling;
  app.add_option("--plugin", plugin, "run this algorithm (of the configuration, or of the built-in default)");
  const auto run_options = [&](CLI::App* to) {
    to->add_option("--config", config, "TOML file; none: the built-in default");
    to->add_option("--set", sets, "key=value, over the file")->allow_extra_args(false);
    to->add_flag("--accept-changes", accept_changes,
                 "go on where a model, a record, a plugin or an output is another than a stage remembers");
  };
  run_options(&app);
  const auto line_options = [&](CLI::App* to) {
    to->add_option("--input", files.input, "JSON lines; -: standard input");
    to->add_option("--output", files.output, "JSON lines; -: standard output");
  };
  // What sums and products of counts need to stay within 64 bits. CLI11's own ranges let nan pass.
  const CLI::Range count(int64_t{1}, int64_t{INT32_MAX}), count_or_none(int64_t{0}, int64_t{INT32_MAX});
  const CLI::Range side_by_side(int64_t{1}, int64_t{65536});
  const auto real = [](double least, double most) {
    return CLI::Validator(
        [=](std::string& text) {
          char* end = nullptr;
          const double value = std::strtod(text.c_str(), &end);
          const bool good = end != text.c_str() && *end == '\0' && value >= least && value <= most;
          return good ? std::string() : fmt::format("'{}' is no number from {} to {}", shown(text), least, most);
        },
        fmt::format("FLOAT in [{} - {}]", least, most));
  };
  const CLI::Validator whole(  // CLI11 takes the largest number for one that is larger
      [](std::string& text) {
        uint64_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool good = error == std::errc() && end == text.data() + text.size();
        return good ? std::string() : fmt::format("'{}' is no whole number from 0 to {}", shown(text), UINT64_MAX);
      },
      "UINT");
  const auto sampling_options = [&](CLI::App* to) {
    auto& s = sampling;
    to->add_option("--max-new-tokens", s.max_new_tokens)->check(count);
    to->add_option("--temperature", s.temperature, "0: greedy")->check(real(0, 1e6));
    to->add_option("--top-k", s.top_k, "0: all")->check(count_or_none);
    to->add_option("--top-p", s.top_p)->check(real(1e-9, 1));
    to->add_option("--min-p", s.min_p)->check(real(0, 1));
    to->add_option("--repetition-penalty", s.repetition_penalty)->check(real(1e-9, 1e9));
    to->add_option("--seed", s.seed)->check(whole);
  };

  const auto base_option = [](CLI::App* to, const char* flag, std::string& base, const char* of) {
    to->add_option(flag, base, fmt::format("directory of the base of {}; none: the one that it names", of));
  };
  const auto compute_options = [&](CLI::App* to) {
    to->add_option("--threads", threads, "0: all cores")->check(count_or_none);
    to->add_option("--dtype", dtype, "fp32, or bf16: weights rounded to bfloat16")
        ->check(CLI::IsMember({"fp32", "bf16"}));
  };

  auto* run_app = app.add_subcommand("run", "every [[stage]] of a configuration in turn");
  run_options(run_app);
  run_app->footer(kRunKeys);
  auto* score = app.add_subcommand("score", "log-probabilities of texts, or rewards");
  score->add_option("--model", model.directory, "Hugging Face directory");
  score->add_option("--reward", reward, "directory of a reward model");
  base_option(score, "--base", model.base, "an adapter");
  line_options(score), compute_options(score);
  score->footer(kScoreKeys);
  auto* gen = app.add_subcommand("generate", "answers to prompts");
  gen->add_option("--model", model.directory, "Hugging Face directory")->required();
  gen->add_option("--n", sampling.samples, "answers a prompt")->check(side_by_side);
  gen->add_option("--slots", sampling.slots, "sequences at once")->check(side_by_side);
  gen->add_option("--stop", sampling.stop, "a string that ends an answer")->allow_extra_args(false);
  gen->add_flag("--ignore-eos", sampling.ignore_end);
  base_option(gen, "--base", model.base, "an adapter");
  line_options(gen), compute_options(gen), sampling_options(gen);
  gen->footer(kGenerateKeys);
  auto* tok = app.add_subcommand("tokenize", "text to ids and back");
  tok->add_option("--model", model.directory, "Hugging Face directory")->required();
  base_option(tok, "--base", model.base, "an adapter");
  line_options(tok);
  tok->footer(kTokenizeKeys);
  auto* chat = app.add_subcommand("chat", "talk to a model");
  chat->add_option("--model", model.directory, "Hugging Face directory")->required();
  base_option(chat, "--base", model.base, "an adapter");
  sampling_options(chat);
  std::vector<std::filesystem::path> folders;
  std::filesystem::path page = "report.html";
  auto* report = app.add_subcommand("report", "curves, times and answers of runs, as one page of HTML");
  report->add_option("folders", folders, "the runs' output_dir")->required();
  report->add_option("--output", page, "the page; none: report.html");
  report->footer(kReportKeys);
  auto* eval =
      app.add_subcommand("eval", "held-out loss, a reward model's accuracy, mean rewards, answers side by side");
  eval->add_option("--model", evaluated.model, "Hugging Face directory of a language model");
  eval->add_option("--other", evaluated.other, "another, to compare with it");
  eval->add_option("--reward-model", evaluated.reward_model, "directory of a reward model");
  eval->add_option("--reward", evaluated.reward, "reward plugin; none: model, where --reward-model is given");
  eval->add_option("--reward-option", evaluated.reward_options, "key=value, of that plugin")->allow_extra_args(false);
  base_option(eval, "--base", evaluated.base, "those of --model and --other that are adapters");
  base_option(eval, "--reward-base", evaluated.reward_base, "a reward model that is an adapter");
  eval->add_option("--data", evaluated.data, "held-out records")->required();
  eval->add_option("--adapter", evaluated.adapter, "dataset plugin that reads them");
  eval->add_option("--data-option", evaluated.data_options, "key=value, of that plugin")->allow_extra_args(false);
  eval->add_option("--rows", evaluated.rows, "records to read")->check(count);
  eval->add_option("--samples", evaluated.shown, "answers to show")->check(count_or_none);
  eval->add_option("--output", evaluated.output, "everything as JSON");
  eval->add_option("--threads", threads, "0: all cores")->check(count_or_none);
  eval->add_option("--dtype", evaluated.dtype)->check(CLI::IsMember({"fp32", "bf16"}));
  sampling_options(eval);
  eval->footer(kEvalKeys);
  auto* exporter =
      app.add_subcommand("export", "a model, an adapter merged, or a stage's result as a Hugging Face folder");
  exporter->add_option("--model", exported.model.directory, "directory of a model, an adapter, or a finished stage")
      ->required();
  base_option(exporter, "--base", exported.model.base, "an adapter");
  exporter->add_option("--output", exported.output, "the new directory")->required();
  exporter->add_option("--weights", exported.weights, "of a stage: final, or the moving average")
      ->check(CLI::IsMember({"final", "ema"}));
  exporter->add_option("--dtype", exported.dtype)->check(CLI::IsMember({"fp32", "fp16", "bf16"}));
  exporter->add_option("--shard-size", exported.shard_size, "largest file, such as 5GB");
  auto* reference = app.add_subcommand("reference", "every key of a configuration, as docs/config.md has it");
  bool metrics = false;
  reference->add_flag("--metrics", metrics, "every metric instead, as docs/metrics.md has it");
  auto* plugins = app.add_subcommand("plugins", "what is installed");
  plugins->require_subcommand(1);
  auto* list = plugins->add_subcommand("list", "all items");
  auto* info = plugins->add_subcommand("info", "an item and its options");
  info->add_option("name", name)->required();
  auto* check = plugins->add_subcommand("verify", "try an item, or a file");
  check->add_option("name", name)->required();
  check->add_option("--config", config, "config.json to try a model with; none: a small general one");

  std::string kind, output;
  auto* fresh = plugins->add_subcommand("new", "a folder with a plugin that builds, to begin from");
  fresh->add_option("name", name)->required();
  fresh->add_option("--kind", kind, "algorithm, model, dataset, reward or kernel")->required();
  fresh->add_option("--output", output, "the folder; none: the plugin's name");

  // Before a command or behind it, and more than once.
  const auto add_paths = [&](const std::vector<std::string>& folders) {
    plugin_path.insert(plugin_path.end(), folders.begin(), folders.end());
  };
  const auto plugin_path_option = [&](CLI::App* to) {
    to->add_option_function<std::vector<std::string>>("--plugin-path", add_paths, "folder searched for plugins first")
        ->allow_extra_args(false);
  };
  plugin_path_option(&app);
  for (auto* command : app.get_subcommands({})) {
    plugin_path_option(command);
    for (auto* part : command->get_subcommands({})) plugin_path_option(part);
  }

  try {
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {  // --help, --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    throw UserError(error_line("{} (see --help)", e.what()));
  }
  DSE_CHECK_USER(plugin.empty() || app.get_subcommands().empty() || *run_app,
                 "--plugin runs an algorithm and takes no command beside it but 'run'");
  for (const char* option : {"--config", "--set", "--accept-changes"})
    DSE_CHECK_USER(app.count(option) == 0 || app.get_subcommands().empty() || *run_app,
                   "{} before a command belongs to 'run': give it behind the command that takes it", option);
  set_up_logging({});
  if (*fresh) {
    if (output.empty()) output = name;
    write_new_plugin(name, kind, output, templates_folder());
    std::cout << output << ": see README.md in it\n";
    return 0;
  }
  if (*reference) return std::cout << (metrics ? metric_reference_markdown() : config_reference_markdown()), 0;
  if (*report) return report_command(folders, page);
  if (*run_app || (!plugin.empty() && app.get_subcommands().empty()))
    return run_stages(plugin, config, sets, plugin_path, accept_changes);
  if (app.get_subcommands().empty()) return std::cout << app.help(), 1;
  if (*tok) return tokenize_command(model, files);
  if (*score || *gen || *chat || *eval || *exporter) {
    const dse::Engine engine({plugin_path, threads});
    if (*score) return score_command(engine, model, reward, files, dtype);
    if (*gen) return generate_command(engine, model, files, dtype, sampling);
    if (*chat) return chat_command(engine, model, sampling);
    if (*eval) return eval_command(engine, evaluated, sampling);
    return export_command(engine, exported);
  }
  set_up_threads(threads);
  const PluginRegistry registry(plugin_path);
  if (*list) std::cout << list_plugins(registry);
  if (*info) std::cout << describe_items(registry, name);
  if (*check) {
    const auto checks = verify(registry, name, model_verify_hooks(config.empty() ? Json() : read_json(config)));
    std::cout << format_checks(checks);
    return all_ok(checks) ? 0 : 1;
  }
  return 0;
}

}  // namespace
}  // namespace dsengine

int main(int argc, char** argv) {
#if defined(__x86_64__)
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma")) {
    std::cerr << "dsengine: error: this build needs a processor with AVX2 and FMA\n";
    return 1;
  }
#endif
  try {
    const int status = dsengine::run(argc, argv);
    std::cout.flush();
    DSE_CHECK_USER(std::cout.good(), "standard output cannot be written to");
    return status;
  } catch (const dsengine::ClosedPipe&) {  // nobody is left to be told
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
  } catch (const std::bad_alloc&) {
    std::cerr << "dsengine: error: not enough memory for this\n";
  } catch (const std::exception& e) {
    std::cerr << "dsengine: internal error: " << dsengine::printable_line(e.what()) << "\n";
  }
  return 1;
}
