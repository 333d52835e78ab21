// dsengine bench generate: prompts answered, each answer of a length that is known before.
#include <CLI/CLI.hpp>

#include "app/bench.h"
#include "app/bench_inputs.h"
#include "app/bench_work.h"
#include "app/shared_options.h"
#include "generate/scheduler.h"
#include "model/hf/load.h"
#include "rl/generation_memory.h"

namespace dsengine {

namespace {

struct GenerateBench : BenchOptions {
  int64_t prompt = 128, fresh = 128, samples = 1, slots = 0;
  double temperature = 0;
  bool padded_waves = false;
  std::string lengths = name_of(Lengths::uniform), weights = name_of(WeightFormat::fp32);
};

// One run. A step in which nothing was in flight before reads prompts only: it is the prefill, and ends with the first
// tokens. In the others prompts may enter beside the answers that go on.
struct Answering {
  double prefill = 0, decode = 0;              // seconds
  int64_t tokens = 0, decoded = 0, steps = 0;  // new ones; of them and of the steps, those behind the prefill
  std::vector<int32_t> first;                  // answer
  double rate() const { return double(tokens) / (prefill + decode); }
  double decode_rate() const { return decode > 0 ? double(decoded) / decode : 0; }
};

Answering answer(Scheduler& scheduler, const std::vector<GenerationRequest>& requests) {
  Answering run;
  Lap lap;
  std::vector<RequestId> ids;
  for (const auto& request : requests) ids.push_back(scheduler.submit(request));
  size_t in_flight = 0;
  while (!scheduler.idle()) {
    const auto events = scheduler.step();
    const bool decodes = in_flight > 0;
    in_flight = 0;
    for (const auto& event : events) {
      in_flight += !event.finish;
      if (event.request == ids[0] && event.sample == 0) run.first.push_back(event.token);
    }
    run.tokens += int64_t(events.size());
    if (decodes) run.decoded += int64_t(events.size()), ++run.steps;
    (decodes ? run.decode : run.prefill) += lap();
  }
  return run;
}

// What a batch without a scheduler does: so many at once, and all of them until the longest of them has ended. What
// goes beyond the length asked for is not counted.
Answering answer_in_waves(Scheduler& scheduler, const std::vector<GenerationRequest>& requests, int64_t at_once) {
  Answering run;
  for (size_t first = 0; first < requests.size(); first += size_t(at_once)) {
    const auto begin = requests.begin() + int64_t(first);
    std::vector<GenerationRequest> wave(begin, begin + std::min<int64_t>(at_once, requests.end() - begin));
    int64_t longest = 0;
    for (const auto& request : wave) longest = std::max(longest, request.max_new_tokens);
    for (auto& request : wave) request.max_new_tokens = longest;
    const Answering one = answer(scheduler, wave);
    run.prefill += one.prefill, run.decode += one.decode, run.steps += one.steps;
    if (first == 0) run.first.assign(one.first.begin(), one.first.begin() + requests[0].max_new_tokens);
  }
  for (const auto& request : requests) {
    run.tokens += request.samples * request.max_new_tokens;
    run.decoded += request.samples * (request.max_new_tokens - 1);
  }
  return run;
}

std::vector<GenerationRequest> requests_of(const GenerateBench& o, int64_t vocabulary) {
  const auto prompts = token_rows(std::vector<int64_t>(size_t(o.batch), o.prompt), vocabulary);
  const auto lengths = drawn_lengths(*choice_named<Lengths>(o.lengths), o.batch, o.fresh);
  std::vector<GenerationRequest> requests;
  for (size_t i = 0; i < prompts.size(); ++i)
    requests.push_back({.prompt = prompts[i],
                        .max_new_tokens = lengths[i],
                        .samples = o.samples,
                        .sampling = {.temperature = o.temperature},
                        .seed = 1234,
                        .row = uint64_t(i) * uint64_t(o.samples)});
  return requests;
}

int bench_generate(const GenerateBench& o, const Common& common) {
  const Bench bench("generate", o, common);
  Model model = load_model(
      o.model, bench.session().registry(), bench.session().kernels(),
      {.random_init = o.random, .quick_draws = bench.session().kernels().device().is_apart(), .dtype = bench.dtype()});
  const auto requests = requests_of(o, model.graph().vocabulary);
  const int64_t slots = o.slots > 0 ? o.slots : o.batch * o.samples;
  const WeightFormat format = *choice_named<WeightFormat>(o.weights);
  check_weight_format(format, bench.dtype());
  const Packing packing = packing_of(format);
  model.set_rollout_weights(packing);
  model.pack_rollout_weights();
  Scheduler scheduler(model, {.slots = slots});
  const auto runs = repeated(o.repeats, [&] {
    return o.padded_waves ? answer_in_waves(scheduler, requests, std::max<int64_t>(1, slots / o.samples))
                          : answer(scheduler, requests);
  });
  const auto rate = each(runs, [](const Answering& r) { return r.rate(); });
  const auto prefill = each(runs, [](const Answering& r) { return r.prefill; });
  const auto decode = each(runs, [](const Answering& r) { return r.decode; });
  const auto& first = runs.warm_up;
  const double step = median(decode) / double(std::max<int64_t>(1, first.steps));
  const double floor = ModelWork::of(model).read_bytes(packing) / 1e9 / bench.machine().read_gb_per_s;
  return bench.print(
      {{"prompt", o.prompt},
       {"new", o.fresh},
       {"lengths", o.lengths},
       {"samples", o.samples},
       {"slots", slots},
       {"padded_waves", o.padded_waves},
       {"weights", o.weights},
       {"temperature", o.temperature},
       {"new_tokens", first.tokens},
       {"tokens_per_s", median(rate)},
       {"prefill_s", median(prefill)},
       {"decode_s", median(decode)},
       {"decode_steps", first.steps},
       {"step_s", step},
       {"decode_tokens_per_s", median(each(runs, [](const Answering& r) { return r.decode_rate(); }))},
       {"prefill_tokens_per_s", double(o.batch * o.prompt) / median(prefill)},
       {"floor_share", step > 0 ? floor / step : 0},
       {"spread", {{"tokens_per_s", spread(rate)}, {"prefill_s", spread(prefill)}, {"decode_s", spread(decode)}}},
       {"other_cores", runs.other_cores},
       {"output_ids", first.first}});
}

}  // namespace

Body define_bench_generate(CLI::App& app, Common& common) {
  auto o = std::make_shared<GenerateBench>();
  add_bench_options(app, *o);
  app.add_option("--prompt", o->prompt, "tokens of each prompt")->check(count());
  app.add_option("--new", o->fresh, "tokens of the longest answer")->check(count());
  app.add_option("--lengths", o->lengths, "exponential: of mean --new / 4, cut at --new")
      ->check(CLI::IsMember({"uniform", "exponential"}));
  app.add_option("--samples", o->samples, "answers to each prompt")->check(side_by_side());
  app.add_option("--slots", o->slots, "sequences at once; 0: all")->check(count_or_none());
  app.add_flag("--padded-waves", o->padded_waves, "for comparison: --slots at once, all as long as the longest");
  add_weights_option(app, o->weights);
  app.add_option("--temperature", o->temperature, "0: greedy")->check(real(0, 1e6));
  return [o, &common] { return bench_generate(*o, common); };
}

}  // namespace dsengine
