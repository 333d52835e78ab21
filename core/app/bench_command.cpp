// dsengine bench: how fast this machine generates, trains and multiplies, a line of JSON each.
#include <CLI/CLI.hpp>

#include "app/bench.h"
#include "app/json_keys.h"

namespace dsengine {

namespace {

constexpr Command kParts[] = {
    {"generate", "answers to prompts", define_bench_generate},
    {"train", "a step of supervised fine-tuning", define_bench_train},
    {"ppo", "a step of PPO: actor, critic, reference and reward model", define_bench_ppo},
    {"grpo", "a step of GRPO: actor and reference", define_bench_grpo},
    {"ops", "products of the shapes that models have", define_bench_ops},
};

}  // namespace

Body define_bench(CLI::App& app, Common& common) {
  app.require_subcommand(1);
  app.footer(kBenchKeys);
  return define_commands(app, kParts, common);
}

}  // namespace dsengine
