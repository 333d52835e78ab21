#include "rl/stage.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <spdlog/spdlog.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cmath>

#include "base/check.h"
#include "base/philox.h"
#include "files/atomic_directory.h"
#include "files/hf_directory.h"
#include "rl/answer_ends.h"
#include "rl/fingerprint.h"
#include "run/progress.h"

namespace dsengine {

namespace {

OptionSet options_of(const Item& item, const StageConfig& stage) {
  const auto it = stage.plugin.find(item.name);
  return {item, it == stage.plugin.end() ? OptionValues{} : it->second};
}

double peak_memory_mb() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return double(usage.ru_maxrss) / 1024;
}

// Seconds since 1970.
double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

}  // namespace

StageRunner::StageRunner(const RunConfig& run, const StageConfig& stage, const StageInputs& inputs,
                         const StageContext& context, const StageDirectory& directory)
    : run_(run),
      stage_(stage),
      inputs_(inputs),
      context_(context),
      directory_(directory),
      algorithm_(context.registry.find(DSE_ALGORITHM, stage.algorithm),
                 options_of(context.registry.find(DSE_ALGORITHM, stage.algorithm), stage)),
      text_(TextModel::load(inputs.tokenizer, inputs.actor.empty() ? inputs.reward : inputs.actor)),
      key_(name_hash(stage.name)) {
  load_data();
  if (algorithm_.needs().trained & DSE_ACTOR)
    ends_ = from_rollouts() ? rollout_ends(stage.name, stage.rollout, text_)
                            : taught_ends(stage.name, data_.records, text_);
  load_roles();
  if (const auto& role = roles_.actor ? roles_.actor : roles_.reward)
    data_.check_fit(stage, algorithm_.needs().source, role->model.graph(), text_, inputs.tokenizer);
  if (from_rollouts()) {
    scheduler_ = std::make_unique<Scheduler>(roles_.actor->model, limits_of(stage.rollout));
    phases_.on_leave(Phase::generate, [this] { scheduler_->release(); });
  }
  if (roles_.critic && from_rollouts()) data_.check_critic(stage, roles_.critic->model.graph());
  const int64_t micro = stage.micro_batch_size > 0 ? stage.micro_batch_size : stage.mini_batch_size;
  const double temperature = from_rollouts() && stage.rollout.temperature > 0 ? stage.rollout.temperature : 1.0;
  learner_ = std::make_unique<Learner>(algorithm_, roles_,
                                       Batching{stage.mini_batch_size, std::min(micro, stage.mini_batch_size),
                                                from_rollouts() ? stage.ppo_epochs : 1, temperature, stage.target_kl},
                                       phases_, ranks_);
  if (stage.ptx.coefficient > 0) load_mixture();
}

StageRunner::~StageRunner() = default;

void StageRunner::load_data() {
  const auto& needs = algorithm_.needs();
  data_ = StageData::load(stage_, needs.source, context_.registry, text_, run_.seed);
  stream_ = std::make_unique<ExampleStream>(data_.records, run_.seed, key_);
  plan_ = plan(stage_.max_steps, stage_.epochs);
  steps_ = plan_->steps();
  const auto& rollout = stage_.rollout;
  if (!from_rollouts()) return;
  collector_ = std::make_unique<Collector>(rollout, needs.group_size, data_.records, run_.seed, key_);
  if (sampling_of(rollout).filters())
    spdlog::warn(
        "rollout filters=on note=\"top_k, top_p, min_p and repetition_penalty make log-probs those of another "
        "distribution than the one sampled\"");
}

// The texts of the PTX mixture, and their turn: item n of update u is the same whenever asked.
void StageRunner::load_mixture() {
  const auto& ptx = stage_.ptx;
  text_stream_ = std::make_unique<ExampleStream>(data_.texts, run_.seed, key_ ^ name_hash("ptx"));
  const int64_t count = ptx.batch_size > 0 ? ptx.batch_size : stage_.mini_batch_size;
  learner_->mix({ptx.coefficient, [this, count](int64_t update) {
                   std::vector<const Example*> texts;
                   for (int64_t i = 0; i < count; ++i) texts.push_back(&(*text_stream_)[uint64_t(update * count + i)]);
                   return experience_of(texts, DSE_SOURCE_RECORDS);
                 }});
}

// What bitwise equality of a resumed run rests on, beside its settings and inputs.
Json StageRunner::environment() const {
  return {{"threads", at::get_num_threads()},
          {"cpu", at::get_cpu_capability()},
          {"world_size", ranks_.size()},
          {"kernels", context_.kernels.description()}};
}

void StageRunner::check_inputs() const {
  Json inputs = inputs_.fingerprints;
  inputs["records"] = records_fingerprint(data_.records, stage_.data.sources);
  if (data_.heldout.size() > 0)
    inputs["held-out records"] =
        records_fingerprint(data_.heldout, stage_.data.heldout.empty() ? stage_.data.sources : stage_.data.heldout);
  if (data_.texts.size() > 0) inputs["ptx texts"] = records_fingerprint(data_.texts, stage_.ptx.sources);
  for (const auto* role : {&roles_.actor, &roles_.reference, &roles_.critic, &roles_.reward}) {
    if (!*role) continue;
    const Item& item = context_.registry.find_model((*role)->model.graph().architecture);
    inputs["plugin " + item.name] = plugin_fingerprint(item);
  }
  if (!stage_.rollout.replay.empty()) inputs["replayed rollouts"] = folder_fingerprint(stage_.rollout.replay);
  directory_.check_inputs(inputs);
}

int64_t StageRunner::items_per_step() const {
  const auto source = algorithm_.needs().source;
  return source == DSE_SOURCE_ROLLOUT ? stage_.rollout.batch_size
         : source == DSE_SOURCE_PAIRS ? std::max<int64_t>(1, stage_.mini_batch_size / 2)
                                      : stage_.mini_batch_size;
}

void StageRunner::load_roles() {
  const auto& needs = algorithm_.needs();
  const auto load = [&](std::shared_ptr<Role>& role, const char* name, uint32_t bit, const std::filesystem::path& from,
                        ModelKind kind, const RoleConfig& config) {
    if (!(needs.roles & bit)) return;
    const bool random = inputs_.random_init && from == inputs_.actor, train = needs.trained & bit;
    role = std::make_shared<Role>(
        Role{Model::load(from, context_.registry, context_.kernels,
                         {.kind = kind, .random_init = random, .new_value_head = train, .seed = run_.seed}),
             nullptr, config.optimizer, config.lora});
    DSE_CHECK_USER(role->model.finite(), "{}: the weights hold NaN or infinity", from.string());
    role->model.set_recompute(stage_.recompute);
    if (train) role->enable_training(run_.seed ^ name_hash(name));
    spdlog::info("role name={} parameters={} trained={} from={}", name, role->model.parameter_count(),
                 role->model.trained_parameter_count(), from.string());
  };
  load(roles_.actor, "actor", DSE_ACTOR, inputs_.actor, ModelKind::language, stage_.actor);
  const auto& lora = stage_.actor.lora;
  roles_.reference_is_base = (needs.roles & DSE_REFERENCE) && (needs.trained & DSE_ACTOR) && lora.rank > 0 &&
                             lora.also_train.empty() && inputs_.reference == inputs_.actor;
  if (!roles_.reference_is_base)
    load(roles_.reference, "reference", DSE_REFERENCE, inputs_.reference, ModelKind::language, {});
  else
    spdlog::info("role name=reference note=\"the actor with its adapter off\"");
  if (needs.roles & DSE_CRITIC) ask_critic();
  load(roles_.critic, "critic", DSE_CRITIC, inputs_.critic, ModelKind::value, stage_.critic);
  if (needs.trained & DSE_REWARD)
    load(roles_.reward, "reward", DSE_REWARD, inputs_.reward, ModelKind::value, stage_.actor);
  else if (needs.roles & DSE_REWARD)
    scorer_ =
        std::make_unique<Scorer>(stage_.reward_sources(), inputs_.rewards, context_.registry, context_.kernels, text_);
}

// A critic reads the answer's ids, token by token; what it is asked may stand in its own words.
void StageRunner::ask_critic() {
  critic_tokenizer_ = inputs_.tokenizer;
  if (!TextModel::folder_of(inputs_.critic)) return;
  const auto text = TextModel::load(inputs_.critic, inputs_.critic);
  DSE_CHECK_USER(
      text.tokenizer.has_ids_of(text_.tokenizer),
      "the critic {} has another vocabulary than the actor: a critic values the actor's own tokens; set "
      "critic.from to a model of the actor's family (a reward model with another vocabulary may still score)",
      inputs_.critic.string());
  if (!from_rollouts() || !text.has_words_beside(text_)) return;
  spdlog::info("role name=critic note=\"asked by its own chat template\"");
  critic_tokenizer_ = inputs_.critic;
  for (auto* set : {&data_.records, &data_.heldout})
    set->ask_critic(text, fmt::format("the critic {}", inputs_.critic.string()));
}

StepPlan StageRunner::plan(int64_t max_steps, int64_t epochs) const {
  return {data_.records, run_.seed, key_, items_per_step(), {max_steps, epochs}};
}

void StageRunner::check_length(const StageState& state) const {
  DSE_CHECK_USER(state.step <= steps_,
                 "stage '{}' has {} steps already, its settings ask for {}: delete {} to train it anew", stage_.name,
                 state.step, steps_, directory_.path().string());
  if (state.max_steps == stage_.max_steps && state.epochs == stage_.epochs) return;
  const StepPlan before = plan(state.max_steps, state.epochs);
  const auto differ = [&](const char* how) {
    directory_.changed(fmt::format("the first {} steps of stage '{}' {} over {} steps, now it has {}", state.step,
                                   stage_.name, how, before.steps(), steps_));
  };
  for (int64_t s = 0; s < state.step; ++s) {
    const auto was = before[s], is = (*plan_)[s];
    if (was.first != is.first || was.count != is.count) return differ("took other records, as epochs cut them,");
  }
  for (const auto* role : {&roles_.actor, &roles_.critic, &roles_.reward}) {
    if (!*role || !(*role)->optimizer) continue;
    for (int64_t s = 0; s < state.step; ++s)
      if (learning_rate_at((*role)->settings, s, before.steps()) != learning_rate_at((*role)->settings, s, steps_))
        return differ("followed a learning rate's schedule (all but \"constant\" depend on the length)");
  }
  spdlog::info("stage name={} steps={} before={} note=\"goes on as if it had been so from the start\"", stage_.name,
               steps_, before.steps());
}

void StageRunner::resume() {
  const auto found = newest_checkpoint(directory_);
  metrics_ = std::make_unique<MetricsLog>(directory_.metrics_file());
  evaluations_ = std::make_unique<MetricsLog>(directory_.eval_file());
  StageState state;
  if (found) {
    state = found->state;
    check_length(state);
    load_checkpoint(*found, stage_.keep_checkpoints, roles_);
    algorithm_.load(state.algorithm_state);
    const Json now = environment();
    for (const auto& [key, value] : now.items())
      if (state.environment.value(key, Json()) != value)
        spdlog::warn("resume {}={} before={} note=\"the continuation will not be equal bit for bit\"", key,
                     value.dump(), state.environment.value(key, Json()).dump());
    spdlog::info("resume stage={} step={} from={}", stage_.name, state.step, found->path.string());
  }
  if (const auto done = directory_.summary()) {  // to be made longer
    DSE_CHECK_USER(state.step == done->value("steps", int64_t(-1)),
                   "stage '{}' ended, and its last checkpoint is gone: it cannot go on to {} steps; delete {} to train "
                   "it anew",
                   stage_.name, steps_, directory_.path().string());
    directory_.reopen();
  }
  first_step_ = finished_steps_ = saved_steps_ = state.step;
  metrics_->truncate(state.metrics_offset);
  evaluations_->truncate(state.eval_offset);
  if (run_.tensorboard)
    tensorboard_ =
        std::make_unique<TensorBoardLog>(directory_.tensorboard(), directory_.metrics_file(), directory_.eval_file());
}

StageEnd StageRunner::stopped(int64_t step) const {
  spdlog::info("stopped stage={} step={} note=\"run the same command to go on\"", stage_.name, step);
  return StageEnd::stopped;
}

StageEnd StageRunner::run() {
  if (ranks_.agree(context_.stop.requested())) return stopped(0);
  check_inputs();
  resume();
  if (scorer_)
    scorer_->set_watch({.stop = &context_.stop, .save = [this] {
                          const at::NoGradGuard no_grad;  // on the watch's thread
                          save_finished_steps();
                        }});
  try {
    return run_steps();
  } catch (const StepLeft&) {
    save_finished_steps();
    return stopped(finished_steps_);
  } catch (const RewardError&) {
    save_finished_steps();
    throw;
  }
}

void StageRunner::save_finished_steps() {
  if (finished_steps_ > saved_steps_) checkpoint(finished_steps_);
}

// The step of the last line of eval.jsonl; -1: there is none.
int64_t StageRunner::last_evaluation() const {
  std::string lines = read_text(directory_.eval_file());
  if (lines.empty()) return -1;
  lines.pop_back();
  const std::string last = lines.substr(lines.rfind('\n') + 1);
  return parse_json(last, directory_.eval_file().string()).value("step", int64_t{-1});
}

StageEnd StageRunner::run_steps() {
  spdlog::info("stage name={} algorithm={} steps={} records={} heldout={}", stage_.name, stage_.algorithm, steps_,
               data_.records.size(), data_.heldout.size());
  const auto stop = [&] { return ranks_.agree(context_.stop.requested()); };
  const auto evaluates_after = [&](int64_t s) { return stage_.eval_every > 0 && s % stage_.eval_every == 0; };
  if (stop()) return stopped(first_step_);
  // One that was left by a stop, or that a stage which was made longer has had at its end only.
  const bool due = first_step_ == 0 || (first_step_ < steps_ && evaluates_after(first_step_));
  if (due && last_evaluation() < first_step_) evaluate(first_step_);
  Progress progress(stage_.name, steps_, {.first_step = first_step_, .log_every = stage_.log_every});
  for (int64_t s = first_step_; s < steps_; ++s) {
    if (s == first_step_ && stop()) return stopped(s);  // after a step it is asked below
    Json line = step(s);
    Progress::Metrics shown;
    for (const char* name : {"loss", "accuracy", "reward", "kl", "response_length"})
      if (line.contains(name) && line[name].is_number()) shown.emplace_back(name, line[name].get<double>());
    directory_.check_present();
    metrics_->append(line);
    if (tensorboard_) tensorboard_->append_training(line);
    finished_steps_ = s + 1;
    const bool last = s + 1 == steps_;
    if (!last && evaluates_after(s + 1)) evaluate(s + 1);
    const bool stops = stop();
    if (last || stops || (stage_.checkpoint_every > 0 && (s + 1) % stage_.checkpoint_every == 0)) checkpoint(s + 1);
    progress.update(s + 1, shown);
    if (stops && !last) return stopped(s + 1);
  }
  progress.finish();
  finish();
  return StageEnd::finished;
}

Json StageRunner::step(int64_t step) {
  phases_.restart();  // loading, evaluations and checkpoints are no part of a step
  Json line{{"stage", stage_.name}, {"step", step + 1}};
  MetricMeans means;
  Experience e = from_rollouts()
                     ? collector_->collect(step, (*plan_)[step], rollout_with(stage_.rollout, run_.seed ^ key_),
                                           scorer_.get(), phases_, means)
                     : next_records(step);
  e.allocate(algorithm_.needs());
  const Charge columns(Ledger::host(), MemoryTag::columns, e.bytes());
  learner_->fill_columns(e, means);
  prepare(algorithm_, e, means);
  learner_->update(
      e, run_.seed ^ key_, uint64_t(step), [&](const OptimizerConfig& o) { return learning_rate_at(o, step, steps_); },
      means);
  means.write_to(line);
  int64_t tokens = 0;
  for (const auto& row : e.rows) tokens += int64_t(row.tokens.size());
  line["tokens"] = tokens;
  phases_.write_to(line);
  line["tokens_per_second"] = double(tokens) / std::max(1e-9, line["seconds"].get<double>());
  line["peak_memory_mb"] = peak_memory_mb();
  line["wall_time"] = wall_time();
  return line;
}

Experience StageRunner::next_records(int64_t step) {
  std::vector<const Example*> examples;
  const auto items = (*plan_)[step];
  for (int64_t i = 0; i < items.count; ++i) examples.push_back(&(*stream_)[items.first + uint64_t(i)]);
  return experience_of(examples, algorithm_.needs().source);
}

Rollout StageRunner::rollout_with(const RolloutConfig& config, uint64_t seed) const {
  return {*scheduler_, text_, config, seed};
}

void StageRunner::evaluate(int64_t step) {
  if (data_.heldout.size() == 0) return;
  Json line{{"stage", stage_.name}, {"step", step}};
  if (from_rollouts()) {
    RolloutConfig config = stage_.rollout;
    config.samples_per_prompt = 1, config.record.clear(), config.replay.clear();
    const Rollout rollout = rollout_with(config, run_.seed ^ uint64_t(Purpose::evaluate));
    const auto phase = phases_.enter(Phase::generate);
    line.update(evaluate_rollouts(data_.heldout, stage_.eval_rows, rollout, scorer_.get()));
  } else {
    line.update(evaluate_records(data_.heldout, stage_.eval_rows, items_per_step(), algorithm_, *learner_));
  }
  line["wall_time"] = wall_time();
  evaluations_->append(line);
  if (tensorboard_) tensorboard_->append_evaluation(line);
  Json shown = line;
  shown.erase("samples");
  spdlog::info("eval {}", shown.dump());
}

void StageRunner::checkpoint(int64_t step) {
  save_checkpoint(directory_, stage_.keep_checkpoints,
                  {step, stage_.max_steps, stage_.epochs, metrics_->offset(), evaluations_->offset(), algorithm_.save(),
                   environment()},
                  roles_);
  saved_steps_ = step;
}

void StageRunner::finish() {
  evaluate(steps_);
  directory_.check_present();
  const auto write_moments = [&](const Model& model, const std::filesystem::path& to) {
    if (algorithm_.needs().source == DSE_SOURCE_PAIRS && model.kind() == ModelKind::value)
      moments_of(model).write(to);  // what the reward plugin scales by
  };
  const auto write = [&](const Model& model, const std::string& name, const std::filesystem::path& tokenizer,
                         const std::vector<TokenId>& ends) {
    AtomicDirectory out(directory_.path() / name);
    model.save(out.path(), tokenizer, {.ends = ends});
    write_moments(model, out.path());
    out.commit();
    spdlog::info("saved directory={}", (directory_.path() / name).string());
  };
  const auto save = [&](const std::shared_ptr<Role>& role, const std::string& name, const std::string& average_name) {
    if (!role || !role->optimizer) return;
    const auto& words = role == roles_.critic ? critic_tokenizer_ : inputs_.tokenizer;
    const auto tokenizer = TextModel::folder_of(words).value_or(words);
    const auto ends = role == roles_.actor ? ends_ : std::vector<TokenId>{};
    write(role->model, name, tokenizer, ends);
    if (!role->average.empty()) write(role->averaged(), average_name, tokenizer, ends);
    // A base that was drawn, or that was trained in part, is in no folder that the adapter could name.
    const bool drawn = inputs_.random_init && role->model.directory() == inputs_.actor;
    if (!role->model.adapter() || !role->lora.also_train.empty() || drawn) return;
    AtomicDirectory out(directory_.path() / (name == "model" ? "adapter" : name + "_adapter"));
    role->model.save_adapter(out.path(), role->model.base(), tokenizer, ends);
    write_moments(role->model, out.path());
    out.commit();
  };
  save(roles_.actor, "model", "ema");
  save(roles_.reward, "model", "ema");
  if (roles_.actor)
    save(roles_.critic, "critic", "critic_ema");
  else
    save(roles_.critic, "model", "ema");
  directory_.finish({{"stage", stage_.name},
                     {"algorithm", stage_.algorithm},
                     {"steps", steps_},
                     {"epochs", stage_.epochs},
                     {"max_steps", stage_.max_steps},
                     {"kind", roles_.actor && roles_.actor->optimizer ? "language" : "value"}});
}

// Mean and deviation of a reward model's scores on (at most 500 of) the pairs it was trained on.
ScoreMoments StageRunner::moments_of(const Model& model) const {
  std::vector<const Example*> examples;
  for (size_t i = 0; i < std::min<size_t>(500, data_.records.size()); ++i) examples.push_back(&data_.records[i]);
  const Experience e = experience_of(examples, DSE_SOURCE_PAIRS);
  std::vector<std::span<const int32_t>> sequences;
  for (const auto& row : e.rows) sequences.emplace_back(row.tokens);
  double sum = 0, squares = 0;
  for (const double v : last_values(model, sequences)) sum += v, squares += v * v;
  const double n = double(sequences.size()), mean = sum / n;
  return {mean, std::sqrt(std::max(0.0, squares / n - mean * mean))};
}

}  // namespace dsengine
