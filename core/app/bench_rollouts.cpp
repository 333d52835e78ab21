// dsengine bench ppo, bench grpo: a step that answers prompts, scores the answers and learns from them.
#include <CLI/CLI.hpp>
#include <set>

#include "app/bench.h"
#include "app/bench_inputs.h"
#include "app/bench_stage.h"
#include "app/bench_work.h"
#include "app/shared_options.h"
#include "base/check.h"
#include "model/hf/load.h"
#include "rl/generation_memory.h"
#include "rl/rollout.h"

namespace dsengine {

namespace {

struct RolloutBench : BenchOptions {
  RolloutBench() { batch = 16; }
  int64_t prompt = 64, fresh = 64, epochs = 1, group = 1, micro_batch = 0;
  double temperature = 1, kl = 0.1;
  bool recompute = false;
  std::string weights = name_of(WeightFormat::fp32), critic;
  int64_t prompts() const { return batch / group; }
};

StageConfig stage_of(const RolloutBench& o, const std::string& algorithm) {
  StageConfig stage;
  stage.name = stage.algorithm = algorithm;
  stage.mini_batch_size = o.batch, stage.micro_batch_size = o.micro_batch, stage.ppo_epochs = o.epochs;
  stage.recompute = o.recompute;
  stage.rollout.batch_size = o.prompts(), stage.rollout.samples_per_prompt = o.group;
  stage.rollout.weights = *choice_named<WeightFormat>(o.weights);
  stage.rollout.max_response_length = o.fresh, stage.rollout.temperature = o.temperature;
  stage.plugin[algorithm]["kl_coef"] = {o.kl, "--kl-coef"};
  return with_sets(stage, o);
}

using Score = std::function<std::vector<AnswerScore>(const Rollout&, const std::vector<Answered>&)>;

// The prompts of every step, answered by the stage's actor, and scored.
class Rollouts {
 public:
  Rollouts(BenchStage& stage, const RolloutBench& o, Score score)
      : stage_(stage),
        scheduler_(stage.roles().actor->model, limits_of(stage.config().rollout)),
        memory_(stage.phases(), scheduler_, stage.roles().actor->model, stage.config().rollout),
        rollout_(scheduler_, stage.text(), stage.config().rollout, 1234),
        score_(std::move(score)),
        examples_(size_t(o.prompts())) {
    const int64_t vocabulary = stage.roles().actor->model.graph().vocabulary;
    const auto prompts = token_rows(std::vector<int64_t>(examples_.size(), o.prompt), vocabulary);
    for (size_t i = 0; i < examples_.size(); ++i) examples_[i].prompt = prompts[i], prompts_.push_back(&examples_[i]);
  }
  Rollouts(const Rollouts&) = delete;
  Rollouts& operator=(const Rollouts&) = delete;

  Experience next() {
    std::vector<Answered> answers;
    {
      const auto phase = stage_.phases().enter(Phase::generate);
      answers = rollout_.generate(prompts_, stage_.steps());
    }
    if (first_.empty()) first_ = answers[0].answer.tokens;
    for (const auto& a : answers)
      DSE_CHECK(int64_t(a.answer.tokens.size()) == stage_.config().rollout.max_response_length, "{} tokens",
                a.answer.tokens.size());
    const auto phase = stage_.phases().enter(Phase::score);
    return Rollout::experience(answers, score_(rollout_, answers));
  }
  const std::vector<int32_t>& first_answer() const { return first_; }  // of the first step
  // By the actor as it is; null where prompts are a token each.
  Json prompt_loss() const {
    std::vector<std::vector<int32_t>> rows;
    for (const auto& example : examples_) rows.push_back(example.prompt);
    if (rows[0].size() == 1) return nullptr;
    return mean_loss(stage_.roles().actor->model, records_of(rows));
  }

 private:
  BenchStage& stage_;
  Scheduler scheduler_;
  GenerationMemory memory_;
  const Rollout rollout_;
  const Score score_;
  std::vector<Example> examples_;
  std::vector<const Example*> prompts_;
  std::vector<int32_t> first_;
};

// The language model's layers under a head of drawn weights.
RewardModel drawn_reward_model(const Session& session, const std::string& folder, at::ScalarType dtype, bool random) {
  RewardModel reward{load_model(folder, session.registry(), session.kernels(),
                                {.kind = ModelKind::value,
                                 .random_init = random,
                                 .quick_draws = session.kernels().device().is_apart(),
                                 .new_value_head = true,
                                 .dtype = dtype}),
                     {}};
  Lcg draws(99);
  std::vector<float> weights(size_t(reward.model.graph().width));
  for (auto& w : weights) w = float((draws.uniform() - 0.5) * 0.1);
  for (const auto& part : reward.model.tensors())
    if (part.spec->role == ParamRole::value_head)
      at::Tensor(part.tensor).copy_(reward.model.device().upload(weights).view_as(part.tensor));
  return reward;
}

// How many different tokens each answer has: no model is asked.
std::vector<AnswerScore> variety(const Rollout&, const std::vector<Answered>& answers) {
  std::vector<AnswerScore> scores;
  for (const auto& a : answers) {
    const std::set<int32_t> different(a.answer.tokens.begin(), a.answer.tokens.end());
    scores.push_back({float(different.size()) / 100});
  }
  return scores;
}

// Floating-point operations of a step at least: a prompt is read once for all its answers, and the actor's own
// log-probabilities are those that it sampled by.
double least_flops(const RolloutBench& o, const Roles& roles, bool reward_model) {
  const auto epochs = double(o.epochs);
  const int64_t tokens = o.batch * (o.prompt + o.fresh), outputs = o.batch * o.fresh;
  const ModelWork actor = ModelWork::of(roles.actor->model);
  double flops = actor.forward(o.prompts() * o.prompt + o.batch * (o.fresh - 1), outputs);
  flops += epochs * actor.training(tokens, outputs);
  if (o.kl > 0) flops += actor.forward(tokens, outputs);  // the reference
  const ModelWork value{.matrices = roles.critic ? ModelWork::of(roles.critic->model).matrices : 0};
  flops += value.forward(tokens, 0) + epochs * value.training(tokens, 0);
  if (reward_model) flops += value.forward(tokens, 0);
  return flops;
}

int bench_rollouts(const Bench& bench, const RolloutBench& o, BenchStage& stage, Rollouts& rollouts,
                   bool reward_model) {
  const Json prompt_loss = rollouts.prompt_loss();
  const auto runs = repeated(o.repeats, [&] { return stage.step([&] { return rollouts.next(); }); });
  const auto number = [](const char* key) { return [key](const Json& line) { return line.at(key).get<double>(); }; };
  const auto seconds = each(runs, number("seconds")), generate = each(runs, number("seconds_generate"));
  const auto& last = runs.runs.back();
  const double step = median(seconds), gflop = least_flops(o, stage.roles(), reward_model) / 1e9;
  return bench.print({{"group", o.group},
                      {"prompt", o.prompt},
                      {"new", o.fresh},
                      {"epochs", o.epochs},
                      {"micro_batch", o.micro_batch > 0 ? o.micro_batch : o.batch},
                      {"temperature", o.temperature},
                      {"weights", o.weights},
                      {"kl_coef", o.kl},
                      {"step_s", step},
                      {"samples_per_s", double(o.batch) / step},
                      {"generate_s", median(generate)},
                      {"rest_s", step - median(generate)},
                      {"generate_share", median(generate) / step},
                      {"decode_tokens_per_s", double(o.batch * o.fresh) / median(generate)},
                      {"phases_s", median_phases(runs.runs)},
                      {"gflop_per_step", gflop},
                      {"floor_share", gflop / bench.machine().product_gflops / step},
                      {"loss_first", runs.warm_up.at("loss")},
                      {"loss_last", last.at("loss")},
                      {"prompt_loss", prompt_loss},
                      {"output_ids", rollouts.first_answer()},
                      {"memory_peak_mb", last.at("memory_peak_mb")},
                      {"memory_mb", memory_by_tag(last)},
                      {"spread", {{"step_s", spread(seconds)}, {"generate_s", spread(generate)}}},
                      {"other_cores", runs.other_cores}});
}

int bench_ppo(const RolloutBench& o, const Common& common) {
  const Bench bench("ppo", o, common);
  const std::string& critic = o.critic.empty() ? o.model : o.critic;
  BenchStage stage(bench.session(), o.model, stage_of(o, "ppo"), bench.dtype(), o.random, critic);
  const auto reward =
      std::make_shared<const RewardModel>(drawn_reward_model(bench.session(), critic, bench.dtype(), o.random));
  Scorer scorer(stage.config().reward_sources(), {reward}, bench.session().registry());
  Rollouts rollouts(stage, o, [&](const Rollout& rollout, const std::vector<Answered>& answers) {
    return scorer.score(rollout.to_score(answers));
  });
  return bench_rollouts(bench, o, stage, rollouts, true);
}

int bench_grpo(const RolloutBench& o, const Common& common) {
  DSE_CHECK_USER(o.batch % o.group == 0, "--batch counts answers, --group a prompt's: {} is no multiple of {}", o.batch,
                 o.group);
  const Bench bench("grpo", o, common);
  BenchStage stage(bench.session(), o.model, stage_of(o, "grpo"), bench.dtype(), o.random);
  Rollouts rollouts(stage, o, variety);
  return bench_rollouts(bench, o, stage, rollouts, false);
}

void add_rollout_options(CLI::App& app, RolloutBench& o) {
  add_bench_options(app, o);
  add_set_option(app, o);
  app.add_option("--prompt", o.prompt, "tokens of each prompt")->check(count());
  app.add_option("--new", o.fresh, "tokens of each answer")->check(count());
  app.add_option("--epochs", o.epochs, "passes over the answers")->check(count());
  app.add_option("--micro-batch", o.micro_batch, "answers a forward; 0: the batch")->check(count_or_none());
  add_weights_option(app, o.weights);
  app.add_option("--temperature", o.temperature, "0: greedy")->check(real(0, 1e6));
  app.add_option("--kl-coef", o.kl, "of the divergence from the reference")->check(real(0, 1e6));
  app.add_flag("--recompute", o.recompute, "layers anew in the backward");
}

}  // namespace

Body define_bench_ppo(CLI::App& app, Common& common) {
  auto o = std::make_shared<RolloutBench>();
  add_rollout_options(app, *o);
  app.add_option("--critic", o->critic, "directory of the critic and the reward model; else the actor's");
  return [o, &common] { return bench_ppo(*o, common); };
}

Body define_bench_grpo(CLI::App& app, Common& common) {
  auto o = std::make_shared<RolloutBench>();
  o->group = 4, o->kl = 0;
  add_rollout_options(app, *o);
  app.add_option("--group", o->group, "answers to each prompt; --batch counts answers")
      ->check(CLI::Range(int64_t{2}, int64_t{65536}));
  return [o, &common] { return bench_grpo(*o, common); };
}

}  // namespace dsengine
