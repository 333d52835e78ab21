// What a stage switches on for any algorithm: adapters, a mixture of texts, an early stop.
#include <gtest/gtest.h>

#include "../model/golden_models.h"
#include "comm/local.h"
#include "rl/learner.h"

namespace dsengine {
namespace {

AlgorithmInstance ppo() {
  const Item& item = built_plugins().find(DSE_ALGORITHM, "ppo");
  return {item, OptionSet(item, {})};
}

Role role_of(const char* name, ModelKind kind, LoraConfig lora) {
  Role role{golden_model(name, kind), nullptr, {}, std::move(lora)};
  role.settings.learning_rate = 1e-2, role.settings.schedule = Schedule::constant, role.settings.weight_decay = 0.1;
  role.enable_training(1);
  return role;
}

Experience rows(const dse_needs& needs, int64_t count) {
  Experience e;
  for (const auto& tokens : random_sequences(std::vector<int64_t>(size_t(count), 12), 97)) {
    e.add_row({tokens, 5, {}}, e.row_count(), Finish::eos, 1, std::vector<uint8_t>(7, 1));
    e.score.back() = float(e.row_count() % 3) - 1;
  }
  e.allocate(needs);
  return e;
}

double constant_rate(const OptimizerConfig& o) { return o.learning_rate; }

struct TrainingStep {
  AlgorithmInstance algorithm = ppo();
  Roles roles;
  Phases phases;
  LocalCommunicator alone;
  MetricMeans means;
  std::unique_ptr<Learner> learner;
  Experience e = rows(algorithm.needs(), 8);

  explicit TrainingStep(LoraConfig lora, Batching batching = {.mini_batch_size = 8, .micro_batch_size = 4}) {
    roles.actor = std::make_shared<Role>(role_of("llama_gqa", ModelKind::language, lora));
    roles.critic = std::make_shared<Role>(role_of("llama_reward", ModelKind::value, lora));
    if (lora.rank > 0)
      roles.reference_is_base = true;
    else
      roles.reference = std::make_shared<Role>(Role{golden_model("llama_gqa"), nullptr, {}});
    learner = std::make_unique<Learner>(algorithm, roles, batching, phases, alone);
  }
  void step() {
    learner->fill_columns(e, means, true);
    prepare(algorithm, e, means);
    learner->update(e, 0, 0, constant_rate, means);
  }
};

// Training moves what the adapter's policy says and leaves what the base says, so the reference stays.
TEST(LoraTraining, TheReferenceIsTheBase) {
  TrainingStep setup(LoraConfig{.rank = 4, .targets = {"all"}, .also_train = {}});
  setup.step();
  const auto old_logp = setup.e.old_logp, ref_logp = setup.e.ref_logp;
  EXPECT_EQ(old_logp, ref_logp);  // B is zero
  setup.learner->fill_columns(setup.e, setup.means, false);
  EXPECT_EQ(setup.e.ref_logp, ref_logp);
  double moved = 0;
  for (size_t t = 0; t < old_logp.size(); ++t)
    moved = std::max(moved, double(std::abs(setup.e.old_logp[t] - old_logp[t])));
  EXPECT_GT(moved, 1e-3);
  const Model before = golden_model("llama_gqa");
  const auto now = setup.roles.actor->model.tensors(), was = before.tensors();
  for (size_t i = 0; i < now.size(); ++i) EXPECT_TRUE(same_bits(now[i].tensor, was[i].tensor)) << was[i].spec->tensor;
}

// PPO-ptx: gradient of loss + coefficient * mean over the texts' tokens of -log p, from three passes of the learner.
TEST(TextMixture, AddsItsLossToTheActors) {
  const auto gradients = [](double coefficient, bool algorithm) {
    TrainingStep setup({});
    if (!algorithm) std::fill(setup.e.score.begin(), setup.e.score.end(), 0.0f);
    setup.learner->fill_columns(setup.e, setup.means, true);
    if (algorithm) prepare(setup.algorithm, setup.e, setup.means);  // else every advantage is zero
    Experience texts = rows(setup.algorithm.needs(), 5);
    std::fill(texts.mask.begin(), texts.mask.begin() + 3, 0.0f);
    texts.weight[1] = 3;
    if (coefficient > 0) setup.learner->mix({coefficient, [texts](int64_t) { return texts; }});
    setup.roles.actor->settings.grad_clip = 0;
    setup.learner->update(
        setup.e, 0, 0, [](const OptimizerConfig&) { return 0.0; }, setup.means);
    std::vector<at::Tensor> all;
    for (const auto* unit : setup.roles.actor->model.units()) all.push_back(unit->grad().clone());
    return std::pair(all, setup.means.mean("ptx_loss"));
  };
  const auto [plain, none] = gradients(0, true);
  const auto [mixed, loss] = gradients(2, true);
  const auto [alone, same_loss] = gradients(2, false);
  EXPECT_TRUE(std::isnan(none));
  EXPECT_EQ(loss, same_loss);
  // By hand: the texts' loss is the mean of -log p over the 35 - 3 tokens of the mask, the second text's counted
  // thrice.
  Model model = golden_model("llama_gqa");
  double sum = 0;
  const auto sequences = random_sequences(std::vector<int64_t>(5, 12), 97);
  for (size_t r = 0; r < sequences.size(); ++r) {
    const Batch batch = pack_all({sequences[r]});
    const at::Tensor at = at::arange(4, 11, at::kLong);
    const at::Tensor logp =
        model.log_prob(model.hidden(batch), at, batch.tokens.index_select(0, at + 1), 1.0, false).logp;
    sum -= (r == 1 ? 3 : 1) * logp.narrow(0, r == 0 ? 3 : 0, r == 0 ? 4 : 7).sum().item<double>();
  }
  EXPECT_NEAR(loss, sum / (32 + 2 * 7), 1e-5);
  for (size_t u = 0; u < plain.size(); ++u) {
    const at::Tensor expected = plain[u] + alone[u];
    EXPECT_GT(alone[u].abs().max().item<double>(), 1e-4);
    EXPECT_LE((mixed[u] - expected).norm().item<double>(), 1e-5 * expected.norm().item<double>()) << u;
  }
}

// Texts are no pairs: an odd number of them goes beside an algorithm that compares two answers.
TEST(TextMixture, ItsTextsStandAlone) {
  const Item& item = built_plugins().find(DSE_ALGORITHM, "dpo");
  AlgorithmInstance dpo(item, OptionSet(item, {}));
  Roles roles;
  roles.actor = std::make_shared<Role>(role_of("llama_gqa", ModelKind::language, {}));
  roles.reference = std::make_shared<Role>(Role{golden_model("llama_gqa"), nullptr, {}});
  Phases phases;
  LocalCommunicator alone;
  Learner learner(dpo, roles, {.mini_batch_size = 4, .micro_batch_size = 2}, phases, alone);
  const Experience texts = rows(dpo.needs(), 3);
  learner.mix({1, [texts](int64_t) { return texts; }});
  Experience pairs = rows(dpo.needs(), 4);
  MetricMeans means;
  learner.fill_columns(pairs, means, true);
  prepare(dpo, pairs, means);
  learner.update(pairs, 0, 0, constant_rate, means);
  EXPECT_GT(means.mean("ptx_loss"), 0);
}

// Later minibatches are left out once the policy has moved too far; the first is at KL zero and always counts.
TEST(TargetKl, EndsARolloutsUpdates) {
  const auto skipped = [](double target) {
    TrainingStep setup({}, {.mini_batch_size = 4, .micro_batch_size = 4, .epochs = 3, .target_kl = target});
    setup.step();
    return std::pair(setup.means.mean("minibatches_skipped"), setup.roles.actor->optimizer->steps());
  };
  EXPECT_EQ(skipped(1e-6), (std::pair<double, int64_t>(5, 1)));
  EXPECT_EQ(skipped(1e6), (std::pair<double, int64_t>(0, 6)));
}

}  // namespace
}  // namespace dsengine
