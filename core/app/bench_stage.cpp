#include "app/bench_stage.h"

#include <algorithm>

#include "app/bench.h"
#include "memory/card_memory.h"
#include "rl/config_checks.h"
#include "rl/example_stream.h"
#include "rl/forward.h"
#include "rl/objective.h"

namespace dsengine {

namespace {

constexpr const char* kOneToken = R"({"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}})";

TextModel text_of(const std::filesystem::path& model) {
  TextModel text = TextModel::folder_of(model)
                       ? TextModel::load(model, model)
                       : TextModel{Tokenizer::from_json(kOneToken, "the tokenizer in place of none"), {}, {}};
  text.eos.clear();
  return text;
}

RunConfig computing_in(at::ScalarType dtype) {
  RunConfig run;
  run.dtype = dtype == at::kBFloat16 ? NumberFormat::bf16 : NumberFormat::fp32;
  return run;
}

StageInputs all_from(const std::filesystem::path& model, const std::filesystem::path& critic, bool random,
                     const Device& device) {
  StageInputs inputs;
  inputs.quick_draws = device.is_apart();
  for (const auto& entry : kRoles) inputs.models[entry.bit] = model;
  if (!critic.empty()) inputs.models[DSE_CRITIC] = critic;
  if (random)
    for (const auto& [_, folder] : inputs.models) inputs.drawn.insert(folder);
  inputs.tokenizer = model;
  return inputs;
}

// A reward model that is asked is whose rows they are.
dse_needs without_reward(dse_needs needs) {
  if (!(needs.trained & DSE_REWARD)) needs.roles &= ~uint32_t(DSE_REWARD);
  return needs;
}

AlgorithmInstance checked(const RunConfig& run, AlgorithmInstance algorithm, const StageConfig& stage) {
  RunConfig config = run;
  config.stages = {stage};
  check_options(config, stage, algorithm.needs());
  return algorithm;
}

}  // namespace

BenchStage::BenchStage(const Session& session, const std::filesystem::path& model, StageConfig stage,
                       at::ScalarType dtype, bool random, const std::filesystem::path& critic)
    : run_(computing_in(dtype)),
      stage_(std::move(stage)),
      inputs_(all_from(model, critic, random, session.kernels().device())),
      algorithm_(checked(run_, algorithm_of(session.registry(), stage_), stage_)),
      text_(text_of(model)),
      models_(run_, stage_, inputs_, without_reward(algorithm_.needs()), {session.registry(), session.kernels(), stop_},
              text_),
      phases_(ledger_of(session.kernels().device())),
      learner_(algorithm_, models_.roles(), batching_of(stage_, algorithm_.needs()), phases_, ranks_) {}

Json BenchStage::step(const std::function<Experience()>& rows) {
  phases_.restart();
  Json line;
  MetricMeans means;
  Experience e = rows();
  learner_.allocate(e);
  learner_.fill_columns(e, means, true);
  prepare(algorithm_, e, means);
  learner_.update(
      e, run_.seed, steps_++, [](const OptimizerConfig& o) { return o.learning_rate; }, means);
  means.write_to(line);
  phases_.write_to(line);
  return line;
}

Experience records_of(const std::vector<std::vector<int32_t>>& rows) {
  std::vector<Example> examples(rows.size());
  std::vector<const Example*> borrowed;
  for (size_t i = 0; i < rows.size(); ++i) {
    examples[i].prompt = {rows[i][0]};
    examples[i].answer.tokens = {rows[i].begin() + 1, rows[i].end()};
    examples[i].answer.mask.assign(rows[i].size() - 1, 1);
    borrowed.push_back(&examples[i]);
  }
  return experience_of(borrowed, DSE_SOURCE_RECORDS);
}

double mean_loss(const Model& model, const Experience& records) {
  const at::NoGradGuard no_grad;
  const auto out = forward(model, select(records, model.device()), 1, false, false);
  return -out.logp.mean().item<double>();
}

Json median_phases(const std::vector<Json>& lines) {
  Json phases = Json::object();
  for (const char* name : kChoices<Phase>) {
    std::vector<double> seconds;
    for (const auto& line : lines) seconds.push_back(line.at(std::string("seconds_") + name));
    phases[name] = median(seconds);
  }
  return phases;
}

Json memory_by_tag(const Json& line) {
  Json memory = Json::object();
  for (const char* tag : kChoices<MemoryTag>) memory[tag] = line.at(fmt::format("memory_{}_mb", tag));
  return memory;
}

}  // namespace dsengine
