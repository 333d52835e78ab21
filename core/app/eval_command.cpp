#include <spdlog/spdlog.h>

#include <CLI/CLI.hpp>
#include <iostream>

#include "app/command.h"
#include "app/eval_summary.h"
#include "app/evaluation.h"
#include "app/json_keys.h"
#include "app/json_lines.h"
#include "app/shared_options.h"
#include "base/check.h"
#include "files/atomic_directory.h"

namespace dsengine {

namespace {

struct EvalCommandOptions {
  EvalOptions evaluated;
  dse::Sampling sampling;
  std::string output;        // "": none
  std::string older_reader;  // --adapter, which --reader was called
  int64_t shown = 3, threads = 0;
  std::string device = "cpu";
};

int eval(const EvalCommandOptions& o, const Common& common) {
  EvalOptions evaluated = o.evaluated;
  if (!o.older_reader.empty()) {
    DSE_CHECK_USER(evaluated.reader == EvalOptions().reader,
                   "--adapter is the older name of --reader: give one of them");
    spdlog::warn("option_renamed option=--adapter now=--reader note=\"the older name is taken until 1.0\"");
    evaluated.reader = o.older_reader;
  }
  const dse::Engine engine({common.plugin_path, o.threads, o.device});
  if (!o.output.empty()) check_writable(o.output);
  const Json result = evaluate(engine, evaluated, o.sampling);
  std::cout << eval_summary(result, o.shown) << std::flush;
  if (!o.output.empty()) atomic_write_file(o.output, result.dump(2, ' ', false, Json::error_handler_t::replace) + "\n");
  return 0;
}

}  // namespace

Body define_eval(CLI::App& app, Common& common) {
  auto o = std::make_shared<EvalCommandOptions>();
  auto& e = o->evaluated;
  app.add_option("--model", e.model, "Hugging Face directory of a language model");
  app.add_option("--other", e.other, "another, to compare with it");
  app.add_option("--reward-model", e.reward_model, "directory of a reward model");
  app.add_option("--reward", e.reward, "reward plugin; none: model, where --reward-model is given");
  app.add_option("--reward-option", e.reward_options, "key=value, of that plugin")->allow_extra_args(false);
  add_base_option(app, "--base", e.base, "those of --model and --other that are adapters");
  add_base_option(app, "--reward-base", e.reward_base, "a reward model that is an adapter");
  app.add_option("--data", e.data, "held-out records")->required();
  app.add_option("--reader", e.reader, "dataset plugin that reads them");
  app.add_option("--adapter", o->older_reader)->group("");  // not in the help
  app.add_option("--data-option", e.data_options, "key=value, of that plugin")->allow_extra_args(false);
  app.add_option("--rows", e.rows, "records to read")->check(count());
  app.add_option("--samples", o->shown, "answers to show")->check(count_or_none());
  app.add_option("--output", o->output, "everything as JSON");
  add_threads_option(app, o->threads);
  add_device_option(app, o->device);
  app.add_option("--dtype", e.dtype)->check(CLI::IsMember({"fp32", "bf16"}));
  add_sampling_options(app, o->sampling);
  app.footer(kEvalKeys);
  return [o, &common] { return eval(*o, common); };
}

}  // namespace dsengine
