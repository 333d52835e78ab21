#include "rl/learner.h"

#include <ATen/ATen.h>
#include <spdlog/spdlog.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <numeric>

#include "base/check.h"
#include "base/philox.h"
#include "rl/forward.h"

namespace dsengine {

using at::Tensor;

namespace {

constexpr double kLogProbAlarm = 0.02;  // nats a token, mean of |rollout - training|

std::vector<int64_t> all_rows(const Experience& e) {
  std::vector<int64_t> rows(size_t(e.row_count()));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// Sum over the loss tokens of q/p - 1 + log p - log q, p now and q the sampling policy.
double kl_from_sampler(const Experience& e) {
  double sum = 0;
  if (e.logp.empty() || e.old_logp.empty()) return 0;
  for (size_t t = 0; t < e.logp.size(); ++t) {
    const double d = double(e.logp[t]) - e.old_logp[t];
    sum += e.mask[t] * (std::expm1(d) - d);
  }
  return sum;
}

// Mean over rows of the sum over an answer's tokens: k1 = log p - log q, k3 = q/p - 1 + log p - log q
// (Schulman 2020, "Approximating KL divergence").
void add_kl(const Experience& e, MetricMeans& means) {
  for (size_t r = 0; r < e.rows.size(); ++r) {
    double k1 = 0, k3 = 0;
    for (int64_t t = e.offsets[r]; t < e.offsets[r + 1]; ++t) {
      const double d = double(e.old_logp[size_t(t)]) - e.ref_logp[size_t(t)];
      k1 += d, k3 += std::expm1(-d) + d;
    }
    means.add("kl", k1), means.add("kl_k3", k3);
  }
}

void add_rollout_difference(const Experience& e, MetricMeans& means) {
  double sum = 0, peak = 0;
  for (size_t r = 0; r < e.rows.size(); ++r)
    for (size_t t = 0; t < e.rows[r].rollout_logp.size(); ++t) {
      const double d = std::abs(double(e.rows[r].rollout_logp[t]) - e.old_logp[size_t(e.offsets[r]) + t]);
      sum += d, peak = std::max(peak, d);
    }
  const double mean = sum / double(std::max<int64_t>(1, e.token_count()));
  if (mean > kLogProbAlarm)
    spdlog::warn(
        "rollout_logp_difference_mean={} note=\"generation and training disagree on the probabilities of "
        "the same tokens: a kernel, or the sampling settings, may be at fault\"",
        mean);
  means.add("rollout_logp_difference_mean", mean);
  means.add("rollout_logp_difference_max", peak);
}

}  // namespace

double learning_rate_at(const OptimizerConfig& s, int64_t step, int64_t steps) {
  if (step < s.warmup_steps) return s.learning_rate * double(step + 1) / double(s.warmup_steps);
  if (s.schedule == Schedule::constant) return s.learning_rate;
  const double span = double(std::max<int64_t>(1, steps - s.warmup_steps));
  const double done = std::min(1.0, double(step - s.warmup_steps) / span);
  const double fall = s.schedule == Schedule::cosine ? 0.5 * (1 + std::cos(std::numbers::pi * done)) : 1 - done;
  return s.learning_rate * (s.min_lr_ratio + (1 - s.min_lr_ratio) * fall);
}

Learner::Learner(AlgorithmInstance& algorithm, Roles& roles, Batching batching, Phases& phases)
    : algorithm_(algorithm), roles_(roles), batching_(batching), phases_(phases) {
  if (rows_together(algorithm.needs()) == 2)
    DSE_CHECK_USER(batching.mini_batch_size % 2 == 0 && batching.micro_batch_size % 2 == 0,
                   "mini_batch_size and micro_batch_size count rows, two a pair: {} and {} should be even",
                   batching.mini_batch_size, batching.micro_batch_size);
}

std::vector<std::vector<int64_t>> Learner::minibatches(const Experience& e, uint64_t seed, uint64_t step,
                                                       int64_t epoch) const {
  // Units that stay together, as [first row, next unit's first row): pairs, the answers to one prompt where the
  // algorithm compares them, else single rows.
  const auto& needs = algorithm_.needs();
  const bool groups = needs.source == DSE_SOURCE_ROLLOUT && needs.group_size > 1;
  std::vector<std::pair<int64_t, int64_t>> order;
  for (int64_t first = 0, last = 0; first < e.row_count(); first = last) {
    last = first + rows_together(needs);
    while (groups && last < e.row_count() && e.prompt[size_t(last)] == e.prompt[size_t(first)]) ++last;
    order.emplace_back(first, last);
  }
  if (epoch > 0) {
    const Philox draws(seed, Purpose::shuffle, step, uint64_t(epoch));
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[size_t(draws.uniform(i) * double(i))]);
  }
  std::vector<std::vector<int64_t>> result;
  for (const auto& [first, last] : order) {
    if (result.empty() || int64_t(result.back().size()) + last - first > batching_.mini_batch_size)
      result.emplace_back();
    for (int64_t r = first; r < last; ++r) result.back().push_back(r);
  }
  return result;
}

std::vector<std::vector<int64_t>> Learner::micro_batches(const std::vector<int64_t>& rows) const {
  std::vector<std::vector<int64_t>> result;
  // A raw loss is of all rows of the minibatch at once.
  const auto size = algorithm_.needs().form == DSE_FORM_RAW ? rows.size() : size_t(batching_.micro_batch_size);
  for (size_t first = 0; first < rows.size(); first += size)
    result.emplace_back(rows.begin() + int64_t(first), rows.begin() + int64_t(std::min(rows.size(), first + size)));
  return result;
}

void Learner::fill_columns(Experience& e, MetricMeans& means) {
  at::NoGradGuard no_grad;
  const uint32_t columns = algorithm_.needs().columns;
  const bool rollout = algorithm_.needs().source == DSE_SOURCE_ROLLOUT;
  const auto copy_rows = [&](const std::vector<int64_t>& rows, const std::vector<float>& from, std::vector<float>& to) {
    size_t at = 0;
    for (const auto r : rows)
      for (int64_t t = e.offsets[size_t(r)]; t < e.offsets[size_t(r) + 1]; ++t) to[size_t(t)] = from[at++];
  };
  std::vector<float> column;
  const Device& device = roles_.device();
  for (const auto& minibatch : minibatches(e, 0, 0, 0)) {
    for (const auto& rows : micro_batches(minibatch)) {
      const Experience part = e.subset(rows);
      const Selection s = select(part, device);
      const auto fill = [&](const Model& model, uint32_t bit, std::vector<float>& to, Phase phase, bool adapted) {
        if (!(columns & bit)) return;
        const auto scope = phases_.enter(phase);
        const bool entropy = bit == DSE_COLUMN_OLD_LOGP;
        const bool critic = bit == DSE_COLUMN_OLD_VALUE;
        const Outputs out =
            forward(model, critic ? select(part, device, true) : s, batching_.temperature, entropy, false, adapted);
        to_column(out.value.defined() ? out.value : out.logp, column);
        copy_rows(rows, column, to);
        if (entropy) means.add("entropy", out.entropy.mean().item<double>(), double(out.entropy.numel()));
      };
      if (roles_.actor) fill(roles_.actor->model, DSE_COLUMN_OLD_LOGP, e.old_logp, Phase::actor, true);
      if (roles_.critic) fill(roles_.critic->model, DSE_COLUMN_OLD_VALUE, e.old_value, Phase::critic, true);
      if (roles_.reference) fill(roles_.reference->model, DSE_COLUMN_REF_LOGP, e.ref_logp, Phase::score, true);
      if (roles_.reference_is_base) fill(roles_.actor->model, DSE_COLUMN_REF_LOGP, e.ref_logp, Phase::score, false);
    }
  }
  if (rollout && !e.old_logp.empty()) {
    add_rollout_difference(e, means);
    if (!e.ref_logp.empty()) add_kl(e, means);
  }
}

double Learner::micro_step(Experience& micro, double normaliser, MetricMeans& means, bool train) {
  const auto& needs = algorithm_.needs();
  const Selection s = select(micro, roles_.device());
  at::AutoGradMode grad(train);
  Outputs actor, critic, reward;
  const bool entropy = needs.columns & DSE_COLUMN_ENTROPY;
  if (roles_.actor && (needs.columns & DSE_COLUMN_LOGP)) {
    const auto phase = phases_.enter(Phase::actor);
    actor = forward(roles_.actor->model, s, batching_.temperature, entropy, false);
    to_column(actor.logp, micro.logp);
    if (entropy) to_column(actor.entropy, micro.entropy);
  }
  if (roles_.critic && (needs.columns & DSE_COLUMN_VALUE)) {
    const auto phase = phases_.enter(Phase::critic);
    critic = forward(roles_.critic->model, select(micro, roles_.device(), true), 1.0, false, false);
    to_column(critic.value, micro.value);
  } else if (roles_.reward && (needs.columns & DSE_COLUMN_VALUE)) {
    const auto phase = phases_.enter(Phase::actor);
    reward = forward(roles_.reward->model, s, 1.0, false, true);
    to_column(reward.value, micro.value);
  }

  const WeightedLoss part = weighted_loss(algorithm_, micro, normaliser, means);
  if (!train) return part.loss;
  const auto run = [&](const Outputs& out, Phase which) {
    const auto phase = phases_.enter(which);
    backward(out, part.d_logp, part.d_entropy, part.d_value);
  };
  run(actor, Phase::actor);
  run(critic, Phase::critic);
  run(reward, Phase::actor);
  return part.loss;
}

Learner::Accumulated Learner::accumulate(Experience& minibatch, MetricMeans& means, bool train) {
  const double n = normaliser(minibatch, algorithm_.needs());
  Accumulated sums;
  for (const auto& part : micro_batches(all_rows(minibatch))) {
    Experience micro = minibatch.subset(part);
    sums.loss += micro_step(micro, n, means, train);
    sums.kl += kl_from_sampler(micro);
  }
  const double tokens = std::accumulate(minibatch.mask.begin(), minibatch.mask.end(), 0.0);
  sums.kl /= std::max(1.0, tokens);
  return sums;
}

double Learner::accumulate_texts() {
  const Experience texts = mixture_->texts(roles_.actor->optimizer->steps());
  // Tokens count by the weights of their records, as they do in supervised fine-tuning.
  const auto weights_of = [](const Experience& e) {
    std::vector<float> weights = e.mask;
    for (size_t r = 0; r < e.rows.size(); ++r)
      for (int64_t t = e.offsets[r]; t < e.offsets[r + 1]; ++t) weights[size_t(t)] *= e.weight[r];
    return weights;
  };
  const auto all = weights_of(texts);
  const double tokens = std::accumulate(all.begin(), all.end(), 0.0);
  DSE_CHECK_USER(tokens > 0, "the mixture's texts have no loss token at all");
  const auto phase = phases_.enter(Phase::actor);
  at::AutoGradMode grad(true);
  double sum = 0;
  for (const auto& part : micro_batches(all_rows(texts))) {
    const Experience micro = texts.subset(part);
    const Tensor logp = forward(roles_.actor->model, select(micro, roles_.device()), 1.0, false, false).logp;
    const Tensor mask = roles_.device().upload(weights_of(micro));
    sum -= (logp.detach() * mask).sum().item<double>();
    const MemoryScope scope(MemoryTag::activations);
    torch::autograd::backward({logp}, {mask * (-mixture_->coefficient / tokens)});
  }
  const double loss = sum / tokens;
  DSE_CHECK_USER(std::isfinite(loss), "the loss on the mixture's texts is not finite: lower the learning rate");
  return loss;
}

// False, and nothing is changed, where the policy has moved too far from the one that sampled.
bool Learner::update_on(Experience& minibatch, const std::function<double(const OptimizerConfig&)>& learning_rate,
                        MetricMeans& means) {
  const auto trained = [](const std::shared_ptr<Role>& role) { return role && role->optimizer; };
  for (auto* role : {&roles_.actor, &roles_.critic, &roles_.reward})
    if (trained(*role)) (*role)->model.zero_grad();
  const Accumulated sums = accumulate(minibatch, means, true);
  if (batching_.target_kl > 0 && sums.kl > 1.5 * batching_.target_kl) return false;
  means.add("loss", sums.loss);
  if (mixture_) means.add("ptx_loss", accumulate_texts());
  const auto apply = [&](const std::shared_ptr<Role>& role, const std::string& prefix, Phase which) {
    if (!trained(role)) return;
    const auto phase = phases_.enter(which);
    const double rate = learning_rate(role->settings);
    means.add(prefix + "grad_norm", role->step(rate));
    means.add(prefix + "learning_rate", rate);
  };
  apply(roles_.actor, "", Phase::actor);
  apply(roles_.reward, "", Phase::actor);
  apply(roles_.critic, roles_.actor ? "critic_" : "", Phase::critic);
  return true;
}

void Learner::update(Experience& e, uint64_t seed, uint64_t step,
                     const std::function<double(const OptimizerConfig&)>& learning_rate, MetricMeans& means) {
  bool going = true;
  double skipped = 0;
  for (int64_t epoch = 0; epoch < batching_.epochs; ++epoch)
    for (const auto& rows : minibatches(e, seed, step, epoch)) {
      Experience minibatch = e.subset(rows);
      if (going) going = update_on(minibatch, learning_rate, means);
      skipped += !going;
    }
  if (batching_.target_kl > 0) means.add("minibatches_skipped", skipped);
}

double Learner::evaluate(Experience& e, MetricMeans& means) {
  const double loss = accumulate(e, means, false).loss;
  // Weighted so that the mean over several calls is the loss of all their rows at once.
  means.add("loss", loss,
            algorithm_.needs().form == DSE_FORM_RAW ? double(e.row_count()) : normaliser(e, algorithm_.needs()));
  return loss;
}

}  // namespace dsengine
