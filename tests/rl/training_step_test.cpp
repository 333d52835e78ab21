// One whole training step of each algorithm (losses, columns, gradients, weight change) against an independent
// float64 computation: tests/golden/{ppo,sft,reward}_step, written by ppo_step.py and supervised_steps.py.
//
// Tolerances: gradients within 1e-5 of each unit's gradient norm, the change of the weights within 1e-3 of its
// norm, at a learning rate of 1e-3 that moves them. expected.json's `float32_deviation` says what float32
// itself loses: gradients 1e-6 to 2e-6, changes up to 7e-5 (Adam's first step is nearly the gradient's sign).
#include "../model/golden_models.h"

#include <gtest/gtest.h>

#include "comm/local.h"
#include "files/weights.h"
#include "rl/learner.h"
#include "rl/scorer.h"

namespace dsengine {
namespace {

namespace fs = std::filesystem;

constexpr double kLossTolerance = 1e-5, kGradientTolerance = 1e-5, kChangeTolerance = 1e-3;
constexpr double kColumnTolerance = 2e-5;  // float32 columns of magnitude up to 10

using Floats = std::vector<std::vector<double>>;

Role trained_role(const fs::path& directory, ModelKind kind, const Json& settings) {
  Role role{golden_model(directory, kind), nullptr, {}};
  auto& o = role.settings;
  o.learning_rate = settings.at("learning_rate"), o.schedule = Schedule::constant;
  o.beta1 = settings.at("beta1"), o.beta2 = settings.at("beta2"), o.epsilon = settings.at("epsilon");
  o.weight_decay = settings.at("weight_decay"), o.grad_clip = settings.at("max_grad_norm"), o.ema_decay = 0.9;
  role.enable_training(0);
  return role;
}

std::map<std::string, at::Tensor> copy_of_weights(const Model& model) {
  std::map<std::string, at::Tensor> result;
  for (const auto& t : model.tensors()) result[t.spec->tensor] = t.tensor.to(at::kDouble, false, true);
  return result;
}

at::Tensor stored(const WeightDirectory& file, const std::string& name, const at::Tensor& like) {
  at::Tensor values = at::empty(like.sizes(), at::kFloat);
  file.read_f32(name, {values.mutable_data_ptr<float>(), size_t(values.numel())});
  return values.to(at::kDouble);
}

// sqrt of the sum of squares over a unit's tensors.
double norm_of(const std::vector<at::Tensor>& tensors) {
  double sum = 0;
  for (const auto& t : tensors) sum += t.square().sum().item<double>();
  return std::sqrt(sum);
}

// Each unit's tensors of `got` against the file's; `base`: subtracted from both (for a change of weights).
template <class Got>
void expect_units_near(Model& model, const fs::path& path, double tolerance, const Got& got,
                       const std::map<std::string, at::Tensor>* base) {
  const auto file = WeightDirectory::open_file(path);
  for (const ParamStorage* unit : model.units()) {
    std::vector<at::Tensor> difference, size;
    for (size_t b = 0; b < unit->blocks().size(); ++b)
      for (size_t p = 0; p < unit->blocks()[b].parts.size(); ++p) {
        const std::string name = unit->blocks()[b].parts[p].tensor;
        const at::Tensor mine = got(*unit, b, p).to(at::kDouble);
        const at::Tensor expected = stored(file, name, mine);
        difference.push_back(mine - expected);
        size.push_back(base ? expected - base->at(name) : expected);
      }
    const double scale = norm_of(size);
    ASSERT_GT(scale, 0) << unit->name() << ": nothing to compare with";
    EXPECT_LE(norm_of(difference), tolerance * scale) << path << ": " << unit->name();
  }
}

void expect_gradients(Role& role, const fs::path& path) {
  expect_units_near(
      role.model, path, kGradientTolerance, [](const ParamStorage& u, size_t b, size_t p) { return u.grad_part(b, p); },
      nullptr);
}

void expect_change(Role& role, const fs::path& path, const std::map<std::string, at::Tensor>& before) {
  expect_units_near(
      role.model, path, kChangeTolerance, [](const ParamStorage& u, size_t b, size_t p) { return u.part(b, p); },
      &before);
}

void expect_column(const std::vector<float>& column, const Json& expected, const std::string& name) {
  size_t at = 0;
  for (const auto& row : expected)
    for (const double value : row) {
      ASSERT_LT(at, column.size()) << name;
      EXPECT_NEAR(column[at], value, kColumnTolerance) << name << " of token " << at;
      ++at;
    }
  EXPECT_EQ(at, column.size()) << name;
}

AlgorithmInstance algorithm(const std::string& name, const OptionValues& options = {}) {
  const Item& item = built_plugins().find(DSE_ALGORITHM, name);
  return {item, OptionSet(item, options)};
}

void add_row(Experience& e, const std::vector<int32_t>& prompt, const std::vector<int32_t>& answer, int64_t id,
             Finish finish, double score) {
  ExperienceRow row{prompt, int64_t(prompt.size()), {}};
  row.tokens.insert(row.tokens.end(), answer.begin(), answer.end());
  e.add_row(std::move(row), id, finish, 1.0, std::vector<uint8_t>(answer.size(), 1));
  e.score.back() = float(score);
}

struct Golden {
  fs::path folder;
  Json input, expected;
  explicit Golden(const std::string& name)
      : folder(golden(name)), input(read_json(folder / "input.json")), expected(read_json(folder / "expected.json")) {}
  fs::path model(const char* key) const { return fs::weakly_canonical(folder / input.at(key).get<std::string>()); }
};

double constant_rate(const OptimizerConfig& o) { return o.learning_rate; }

OptionValues options_of(const Json& settings) {
  OptionValues options{{"whiten", {settings.at("whiten").get<bool>(), ""}}};
  for (const char* name : {"kl_coef", "gamma", "lambda", "clip_ratio", "clip_value", "clip_reward"})
    options[name] = {settings.at(name).get<double>(), ""};
  return options;
}

// The PPO step of the golden files, before its update.
struct PpoStep {
  Golden golden{"ppo_step"};
  const Json& settings = golden.input.at("settings");
  Roles roles;
  AlgorithmInstance ppo;
  Phases phases;
  LocalCommunicator alone;
  Learner learner;
  Experience e;
  MetricMeans means;

  explicit PpoStep(int64_t micro_batch_size = 6, bool recompute = false)
      : ppo(algorithm("ppo", options_of(settings))),
        learner(ppo, roles, {.mini_batch_size = 6, .micro_batch_size = micro_batch_size}, phases, alone) {
    roles.actor = std::make_shared<Role>(trained_role(golden.model("actor"), ModelKind::language, settings));
    roles.critic = std::make_shared<Role>(trained_role(golden.model("critic"), ModelKind::value, settings));
    roles.reference = std::make_shared<Role>(Role{golden_model(golden.model("reference")), nullptr, {}});
    roles.actor->model.set_recompute(recompute), roles.critic->model.set_recompute(recompute);
    for (const auto& row : golden.input.at("rows"))
      add_row(e, row.at("prompt_ids"), row.at("response_ids"), e.row_count(),
              row.at("finish_reason") == "eos" ? Finish::eos : Finish::length, row.at("score"));
    e.allocate(ppo.needs());
    learner.fill_columns(e, means, true);
    prepare(ppo, e, means);
  }
};

TEST(PpoStep, ColumnsAreTheReferences) {
  PpoStep step;
  const Json& x = step.golden.expected;
  expect_column(step.e.old_logp, x.at("logp"), "old_logp");
  expect_column(step.e.old_value, x.at("value"), "old_value");
  expect_column(step.e.ref_logp, x.at("ref_logp"), "ref_logp");
  expect_column(step.e.advantage, x.at("advantage"), "advantage");
  expect_column(step.e.target, x.at("target"), "target");
  double rows = 0;
  for (const double k1 : x.at("kl").at("k1_sum_per_row")) rows += k1;
  EXPECT_NEAR(step.means.mean("kl"), rows / double(step.e.row_count()), 1e-4);
  const double k3 = x.at("kl").at("k3").get<double>() * double(step.e.token_count()) / double(step.e.row_count());
  EXPECT_NEAR(step.means.mean("kl_k3"), k3, 1e-4);
}

TEST(PpoStep, LossGradientsAndWeightChangeAreTheReferences) {
  for (const bool recompute : {false, true}) {
    PpoStep step(6, recompute);
    const Json& x = step.golden.expected;
    const auto actor_before = copy_of_weights(step.roles.actor->model);
    const auto critic_before = copy_of_weights(step.roles.critic->model);
    step.learner.update(step.e, 0, 0, constant_rate, step.means);
    EXPECT_NEAR(step.means.mean("loss"), x.at("loss").get<double>(), kLossTolerance * x.at("loss").get<double>());
    EXPECT_NEAR(step.means.mean("value_loss"), x.at("value_loss").get<double>(), kLossTolerance * 3);
    EXPECT_NEAR(step.means.mean("policy_loss"), 0, 1e-6);  // whitened advantages, ratio 1
    EXPECT_EQ(step.means.mean("ratio"), 1.0);              // exactly, before the first update
    EXPECT_EQ(step.means.mean("clip_fraction"), 0.0);
    const double actor_norm = x.at("actor_grad_norm"), critic_norm = x.at("critic_grad_norm");
    EXPECT_NEAR(step.means.mean("grad_norm"), actor_norm, kGradientTolerance * actor_norm);
    EXPECT_NEAR(step.means.mean("critic_grad_norm"), critic_norm, kGradientTolerance * critic_norm);
    expect_gradients(*step.roles.actor, step.golden.folder / "actor_grads.safetensors");
    expect_gradients(*step.roles.critic, step.golden.folder / "critic_grads.safetensors");
    expect_change(*step.roles.actor, step.golden.folder / "actor_after.safetensors", actor_before);
    expect_change(*step.roles.critic, step.golden.folder / "critic_after.safetensors", critic_before);
  }
}

// The same rows and old columns after the update, where both clips bite.
TEST(PpoStep, SecondEpochClipsAsTheReference) {
  PpoStep step;
  step.learner.update(step.e, 0, 0, constant_rate, step.means);
  MetricMeans second;
  step.learner.evaluate(step.e, second);
  const Json& x = step.golden.expected.at("second_epoch");
  // The weights after one step differ by up to 1e-3 of their change, and the losses follow them.
  for (const char* name : {"loss", "policy_loss", "value_loss"})
    EXPECT_NEAR(second.mean(name), x.at(name).get<double>(), 1e-3 * std::abs(x.at(name).get<double>())) << name;
  EXPECT_GT(x.at("policy_clip_fraction").get<double>(), 0);
}

// The comparison of weight changes would notice an update that was skipped, or half done.
TEST(PpoStep, ASkippedUpdateIsNoticed) {
  PpoStep step;
  const auto before = copy_of_weights(step.roles.actor->model);
  MetricMeans means;
  step.learner.accumulate(step.e, means, true);
  const auto file = WeightDirectory::open_file(step.golden.folder / "actor_after.safetensors");
  for (const auto& [name, tensor] : before) {
    const at::Tensor change = stored(file, name, tensor) - tensor;
    EXPECT_GT(norm_of({change}), 1e-4 * std::sqrt(double(change.numel()))) << name << ": the golden step moves it";
  }
}

struct CountedForwards : SectionHooks {
  int forwards = 0;
  void before_forward(size_t section) override { forwards += section == 0; }
};

// Of one micro-batch the old values are the training forward's own; of several each is made twice. Nothing is kept for
// an evaluation. (The old log-probabilities, of answers that no rollout told, are taken likewise.)
TEST(PpoStep, OfOneMicroBatchMakesNoForwardTwice) {
  for (const auto& [micro_batch, then_update, times] : {std::tuple{6, true, 1}, {3, true, 4}, {6, false, 2}}) {
    PpoStep step(micro_batch);
    const auto first = step.e.old_value;
    CountedForwards actor, critic;
    step.roles.actor->model.set_hooks(&actor), step.roles.critic->model.set_hooks(&critic);
    step.learner.fill_columns(step.e, step.means, then_update);
    EXPECT_EQ(step.e.old_value, first);
    prepare(step.ppo, step.e, step.means);
    step.learner.update(step.e, 0, 0, constant_rate, step.means);
    EXPECT_EQ(step.means.mean("ratio"), 1.0);
    EXPECT_EQ(actor.forwards, times) << micro_batch;
    EXPECT_EQ(critic.forwards, times) << micro_batch;
    step.roles.actor->model.set_hooks(nullptr), step.roles.critic->model.set_hooks(nullptr);
  }
}

// micro_batch_size changes neither losses nor gradients beyond rounding.
TEST(PpoStep, MicroBatchSizeDoesNotChangeTheStep) {
  PpoStep whole(6), single(1);
  for (size_t t = 0; t < whole.e.advantage.size(); ++t) EXPECT_NEAR(whole.e.advantage[t], single.e.advantage[t], 1e-5);
  MetricMeans a, b;
  const double loss = whole.learner.accumulate(whole.e, a, true).loss;
  const double cut = single.learner.accumulate(single.e, b, true).loss;
  EXPECT_NEAR(loss, cut, 1e-5 * loss);
  EXPECT_NEAR(a.mean("value_loss"), b.mean("value_loss"), 1e-5);
  EXPECT_EQ(b.mean("ratio"), 1.0);
  for (auto [one, other] :
       {std::pair{&whole.roles.actor, &single.roles.actor}, std::pair{&whole.roles.critic, &single.roles.critic}}) {
    const auto units = (*one)->model.units(), others = (*other)->model.units();
    for (size_t u = 0; u < units.size(); ++u)
      EXPECT_LE(norm_of({(units[u]->grad() - others[u]->grad()).to(at::kDouble)}),
                kGradientTolerance * norm_of({units[u]->grad().to(at::kDouble)}))
          << units[u]->name();
  }
}

TEST(SftStep, LossGradientsAndWeightChangeAreTheReferences) {
  const Golden golden("sft_step");
  const Json& x = golden.expected;
  Roles roles;
  auto sft = algorithm("sft");
  Phases phases;
  LocalCommunicator alone;
  for (const int64_t micro : {4, 1}) {
    roles.actor =
        std::make_shared<Role>(trained_role(golden.model("model"), ModelKind::language, golden.input.at("settings")));
    Learner learner(sft, roles, {.mini_batch_size = 4, .micro_batch_size = micro}, phases, alone);
    Experience e;
    for (const auto& row : golden.input.at("rows"))
      add_row(e, row.at("prompt_ids"), row.at("completion_ids"), e.row_count(), Finish::record, 0);
    e.allocate(sft.needs());
    MetricMeans means;
    learner.fill_columns(e, means, true), prepare(sft, e, means);
    const auto before = copy_of_weights(roles.actor->model);
    learner.update(e, 0, 0, constant_rate, means);
    const Model averaged = roles.actor->averaged();
    const auto average = copy_of_weights(averaged), after = copy_of_weights(roles.actor->model);
    for (const auto& [name, w] : after)  // one step of the moving average; float32 rounding of weights up to 2
      EXPECT_LE((average.at(name) - (before.at(name) * 0.9 + w * 0.1)).abs().max().item<double>(), 5e-7) << name;
    EXPECT_NEAR(means.mean("loss"), x.at("loss").get<double>(), kLossTolerance * x.at("loss").get<double>());
    EXPECT_NEAR(means.mean("grad_norm"), x.at("grad_norm").get<double>(), kGradientTolerance * 10);
    expect_gradients(*roles.actor, golden.folder / "model_grads.safetensors");
    expect_change(*roles.actor, golden.folder / "model_after.safetensors", before);
  }
}

TEST(RewardStep, LossGradientsAndWeightChangeAreTheReferences) {
  const Golden golden("reward_step");
  const Json& x = golden.expected;
  Roles roles;
  auto reward = algorithm("reward");
  Phases phases;
  LocalCommunicator alone;
  for (const int64_t micro : {8, 2}) {
    roles.reward =
        std::make_shared<Role>(trained_role(golden.model("model"), ModelKind::value, golden.input.at("settings")));
    Learner learner(reward, roles, {.mini_batch_size = 8, .micro_batch_size = micro}, phases, alone);
    Experience e;
    std::vector<std::vector<int32_t>> sequences;
    for (const auto& pair : golden.input.at("pairs"))
      for (const char* side : {"chosen_ids", "rejected_ids"}) {
        const auto& ids = sequences.emplace_back(pair.at(side).get<std::vector<int32_t>>());
        add_row(e, {ids.begin(), ids.begin() + 1}, {ids.begin() + 1, ids.end()}, e.row_count() / 2, Finish::record, 0);
      }
    std::vector<std::span<const int32_t>> views(sequences.begin(), sequences.end());
    const auto values = last_values(roles.reward->model, views);
    for (size_t i = 0; i < values.size(); ++i)
      EXPECT_NEAR(values[i], x.at(i % 2 ? "rejected" : "chosen").at(i / 2).get<double>(), kColumnTolerance);
    e.allocate(reward.needs());
    MetricMeans means;
    learner.fill_columns(e, means, true), prepare(reward, e, means);
    const auto before = copy_of_weights(roles.reward->model);
    learner.update(e, 0, 0, constant_rate, means);
    EXPECT_NEAR(means.mean("loss"), x.at("loss").get<double>(), kLossTolerance);
    EXPECT_EQ(means.mean("accuracy"), x.at("accuracy").get<double>());
    EXPECT_NEAR(means.mean("margin"), x.at("margin").get<double>(), kColumnTolerance);
    expect_gradients(*roles.reward, golden.folder / "model_grads.safetensors");
    expect_change(*roles.reward, golden.folder / "model_after.safetensors", before);
  }
}

}  // namespace
}  // namespace dsengine
