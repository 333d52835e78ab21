// dsengine bench train: a step of supervised fine-tuning, all tokens but the first of each sequence its targets.
#include <CLI/CLI.hpp>
#include <numeric>

#include "app/bench.h"
#include "app/bench_inputs.h"
#include "app/bench_stage.h"
#include "app/bench_work.h"
#include "app/shared_options.h"

namespace dsengine {

namespace {

struct TrainBench : BenchOptions {
  TrainBench() { batch = 4, repeats = 5; }
  int64_t length = 256, micro_batch = 0;
  bool recompute = false;
  std::string lengths = name_of(Lengths::uniform);
};

int bench_train(const TrainBench& o, const Common& common) {
  const Bench bench("train", o, common);
  StageConfig config;
  config.name = config.algorithm = "sft";
  config.mini_batch_size = o.batch, config.micro_batch_size = o.micro_batch, config.recompute = o.recompute;
  config = with_sets(config, o);
  BenchStage stage(bench.session(), o.model, config, bench.dtype(), o.random);
  const Model& model = stage.roles().actor->model;
  const auto lengths = drawn_lengths(*choice_named<Lengths>(o.lengths), o.batch, o.length);
  const auto rows = token_rows(lengths, model.graph().vocabulary);
  const auto runs = repeated(o.repeats, [&] { return stage.step([&] { return records_of(rows); }); });
  const auto seconds = each(runs, [](const Json& line) { return line.at("seconds").get<double>(); });
  const double step = median(seconds);
  const int64_t tokens = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
  const double flops = ModelWork::of(model).training(tokens, tokens - o.batch);
  return bench.print({{"length", o.length},
                      {"lengths", o.lengths},
                      {"micro_batch", o.micro_batch > 0 ? o.micro_batch : o.batch},
                      {"tokens", tokens},
                      {"step_s", step},
                      {"tokens_per_s", double(tokens) / step},
                      {"samples_per_s", double(o.batch) / step},
                      {"gflops", flops / 1e9 / step},
                      {"gflop_per_step", flops / 1e9},
                      {"floor_share", flops / 1e9 / bench.machine().product_gflops / step},
                      {"phases_s", median_phases(runs.runs)},
                      {"parameters", model.parameter_count()},
                      {"loss_first", runs.warm_up.at("loss")},
                      {"loss_last", runs.runs.back().at("loss")},
                      {"memory_peak_mb", runs.runs.back().at("memory_peak_mb")},
                      {"memory_mb", memory_by_tag(runs.runs.back())},
                      {"spread", {{"step_s", spread(seconds)}}},
                      {"other_cores", runs.other_cores}});
}

}  // namespace

Body define_bench_train(CLI::App& app, Common& common) {
  auto o = std::make_shared<TrainBench>();
  add_bench_options(app, *o);
  add_set_option(app, *o);
  app.add_option("--length", o->length, "tokens of the longest sequence")
      ->check(CLI::Range(int64_t{8}, int64_t{INT32_MAX}));
  app.add_option("--lengths", o->lengths, "ragged: drawn from --length / 4 to --length")
      ->check(CLI::IsMember({"uniform", "ragged"}));
  app.add_option("--micro-batch", o->micro_batch, "sequences a forward; 0: the batch")->check(count_or_none());
  app.add_flag("--recompute", o->recompute, "layers anew in the backward");
  return [o, &common] { return bench_train(*o, common); };
}

}  // namespace dsengine
