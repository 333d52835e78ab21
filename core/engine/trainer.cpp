// Training steps: by a loss of the caller's, or by an algorithm plugin.
#include <algorithm>
#include <cmath>
#include <map>

#include "base/check.h"
#include "comm/local.h"
#include "engine/engine_impl.h"
#include "memory/card_memory.h"
#include "rl/forward.h"
#include "rl/learner.h"

namespace dse {

namespace {

std::vector<float> joined(const Columns& columns, const dsengine::Experience& e, const char* name) {
  std::vector<float> all;
  for (size_t r = 0; r < columns.size(); ++r) {
    DSE_CHECK_USER(int64_t(columns[r].size()) == e.rows[r]->answer_size(), "{}: {} slopes for a reply of {} tokens",
                   name, columns[r].size(), e.rows[r]->answer_size());
    all.insert(all.end(), columns[r].begin(), columns[r].end());
  }
  return all;
}

// A tensor [T] as a column a reply, and a zeroed one beside it.
void fill(const at::Tensor& from, const dsengine::Experience& e, Columns& column, Columns& slopes) {
  if (!from.defined()) return;
  std::vector<float> all;
  dsengine::to_column(from, all);
  auto at = all.begin();
  for (const auto& row : e.rows) {
    column.emplace_back(at, at + row->answer_size());
    slopes.emplace_back(row->answer_size(), 0.0f);
    at += row->answer_size();
  }
}

dsengine::Role* trained(Model* model, const char* name, bool value) {
  if (!model) return nullptr;
  DSE_CHECK_USER(model->impl().role->optimizer, "the {} was loaded without Loading::training: it cannot be trained",
                 name);
  DSE_CHECK_USER(model->is_value_model() == value, "the {} should be a {} model", name, value ? "value" : "language");
  return model->impl().role.get();
}

}  // namespace

StepResult train_step(Model* actor, Model* critic, const std::vector<Reply>& replies, const StepOptions& o,
                      const std::function<double(MicroBatch&)>& loss) {
  auto* policy = trained(actor, "actor", false);
  auto* valuer = trained(critic, "critic", true);
  DSE_CHECK_USER(policy || valuer, "train_step: nothing to train");
  DSE_CHECK_USER(!replies.empty() && o.micro_batch_size > 0 && o.temperature > 0,
                 "train_step: no replies, or micro_batch_size or temperature is 0");
  for (auto* role : {policy, valuer})
    if (role) check_replies(role->model, replies), role->model.zero_grad();
  StepResult result;
  for (size_t first = 0; first < replies.size(); first += o.micro_batch_size) {
    const size_t last = std::min(replies.size(), first + o.micro_batch_size);
    const auto e = experience_of({replies.begin() + int64_t(first), replies.begin() + int64_t(last)}, {});
    const auto selection = dsengine::select(e, (policy ? policy : valuer)->model.device());
    at::AutoGradMode grad(true);
    dsengine::Outputs of_actor, of_critic;
    MicroBatch micro{first, {}, {}, {}, {}, {}, {}};
    if (policy) of_actor = dsengine::forward(policy->model, selection, o.temperature, true, false);
    if (valuer) of_critic = dsengine::forward(valuer->model, selection, 1, false, false);
    fill(of_actor.logp, e, micro.logp, micro.d_logp), fill(of_actor.entropy, e, micro.entropy, micro.d_entropy);
    fill(of_critic.value, e, micro.value, micro.d_value);
    const double part = loss(micro);
    DSE_CHECK_USER(std::isfinite(part), "train_step: the loss is not finite");
    result.loss += part;
    if (policy)
      dsengine::backward(of_actor, joined(micro.d_logp, e, "d_logp"), joined(micro.d_entropy, e, "d_entropy"), {});
    if (valuer) dsengine::backward(of_critic, {}, {}, joined(micro.d_value, e, "d_value"));
  }
  dsengine::LocalCommunicator alone;
  if (policy) result.grad_norm = policy->step(policy->settings.learning_rate * o.rate_factor, alone);
  if (valuer) result.critic_grad_norm = valuer->step(valuer->settings.learning_rate * o.rate_factor, alone);
  return result;
}

struct Trainer::Impl {
  std::shared_ptr<const Engine::Impl> engine;
  std::vector<Model> models;  // kept while they are trained
  dsengine::AlgorithmInstance algorithm;
  dsengine::Roles roles{};
  dsengine::Phases phases{dsengine::ledger_of(engine->session.kernels().device())};
  std::unique_ptr<dsengine::Communicator> ranks = std::make_unique<dsengine::LocalCommunicator>();
  std::unique_ptr<dsengine::Learner> learner{};
  uint64_t seed = 0, steps = 0;
};

Trainer::Trainer(const Engine& engine, const TrainerOptions& o) {
  const auto& registry = engine.impl()->session.registry();
  const auto& item = registry.find(DSE_ALGORITHM, o.algorithm);
  dsengine::OptionValues values;
  for (const auto& [name, value] : o.options)
    values[name] = {std::visit([](const auto& v) { return dsengine::OptionVariant(v); }, value), "TrainerOptions"};
  impl_ = std::make_shared<Impl>(
      Impl{engine.impl(), {}, dsengine::AlgorithmInstance(item, dsengine::OptionSet(item, values))});
  const auto& needs = impl_->algorithm.needs();
  const std::map<uint32_t, const std::optional<Model>&> given{
      {DSE_ACTOR, o.actor}, {DSE_CRITIC, o.critic}, {DSE_REWARD, o.reward}, {DSE_REFERENCE, o.reference}};
  const auto take = [&](const dsengine::RoleEntry& entry) {
    const auto& model = given.at(entry.bit);
    const bool train = needs.trained & entry.bit, value = entry.kind == dsengine::ModelKind::value;
    DSE_CHECK_USER(model, "the algorithm '{}' needs the {}", o.algorithm, entry.title);
    DSE_CHECK_USER(model->is_value_model() == value, "the {} should be a {} model", entry.title,
                   value ? "value" : "language");
    auto& role = impl_->roles.*entry.role;
    role = model->impl().role;
    DSE_CHECK_USER(!train || role->optimizer, "the {} was loaded without Loading::training: it cannot be trained",
                   entry.title);
    impl_->models.push_back(*model);
  };
  for (const auto& entry : dsengine::kRoles) {
    if (!(needs.roles & entry.bit)) continue;
    if (entry.bit == DSE_REWARD && !(needs.trained & DSE_REWARD)) continue;  // its scores come with the replies
    const bool base =
        entry.bit == DSE_REFERENCE && !o.reference && impl_->roles.actor && impl_->roles.actor->model.adapter();
    if (base)
      impl_->roles.reference_is_base = true;
    else
      take(entry);
  }
  DSE_CHECK_USER(o.mini_batch_size > 0 && o.micro_batch_size >= 0 && o.epochs > 0 && o.temperature > 0,
                 "TrainerOptions: mini_batch_size, epochs and temperature are above 0, micro_batch_size at least 0");
  const int64_t micro = o.micro_batch_size > 0 ? o.micro_batch_size : o.mini_batch_size;
  impl_->seed = o.seed;
  impl_->learner = std::make_unique<dsengine::Learner>(
      impl_->algorithm, impl_->roles,
      dsengine::Batching{o.mini_batch_size, std::min(micro, o.mini_batch_size), o.epochs, o.temperature}, impl_->phases,
      *impl_->ranks);
}

std::map<std::string, double> Trainer::step(const std::vector<Reply>& replies, const std::vector<float>& scores,
                                            double rate_factor) {
  auto& i = *impl_;
  DSE_CHECK_USER(!replies.empty(), "a step without replies");
  const bool scored = i.algorithm.needs().source == DSE_SOURCE_ROLLOUT;
  DSE_CHECK_USER(scores.size() == (scored ? replies.size() : 0), "{} scores for {} replies", scores.size(),
                 replies.size());
  for (size_t r = 0; r < scores.size(); ++r)
    DSE_CHECK_USER(std::isfinite(scores[r]), "the score of reply {} is not a number: leave that reply out", r);
  DSE_CHECK_USER(int64_t(replies.size()) % dsengine::rows_together(i.algorithm.needs()) == 0,
                 "{} replies: chosen and rejected ones come in pairs", replies.size());
  for (const auto& model : i.models) check_replies(model.impl().model(), replies);
  auto e = experience_of(replies, scores);
  i.learner->allocate(e);
  dsengine::MetricMeans means;
  i.learner->fill_columns(e, means, true);
  dsengine::prepare(i.algorithm, e, means);
  i.learner->update(
      e, i.seed, i.steps++, [&](const dsengine::OptimizerConfig& o) { return o.learning_rate * rate_factor; }, means);
  dsengine::Json json;
  means.write_to(json);
  std::map<std::string, double> result;
  for (const auto& [name, value] : json.items()) result[name] = value;
  return result;
}

}  // namespace dse
