#include "rl/learner.h"

#include <ATen/ATen.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <utility>

#include "base/check.h"
#include "base/philox.h"
#include "rl/divergence.h"

namespace dsengine {

using at::Tensor;

namespace {

std::vector<int64_t> all_rows(const Experience& e) {
  std::vector<int64_t> rows(size_t(e.row_count()));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

void add_entropy(const Outputs& out, MetricSink& means) {
  if (out.entropy.numel() == 0) return;
  means.add("entropy", on_host(out.entropy.detach().mean()).item<double>(), double(out.entropy.numel()));
}

// In place of an algorithm's loss where no column has values: zeros, for whatever was asked.
WeightedLoss without_slopes(const Experience& e) {
  return {0, std::vector<float>(e.logp.size()), std::vector<float>(e.entropy.size()),
          std::vector<float>(e.value.size())};
}

}  // namespace

Learner::Learner(AlgorithmInstance& algorithm, Roles& roles, Batching batching, Phases& phases, Communicator& ranks)
    : algorithm_(algorithm), roles_(roles), batching_(batching), phases_(phases), ranks_(ranks) {
  if (rows_together(algorithm.needs()) == 2)
    DSE_CHECK_USER(batching.mini_batch_size % 2 == 0 && batching.micro_batch_size % 2 == 0,
                   "mini_batch_size and micro_batch_size count rows, two a pair: {} and {} should be even",
                   batching.mini_batch_size, batching.micro_batch_size);
}

std::vector<std::vector<int64_t>> Learner::minibatches(const Experience& e, uint64_t seed, uint64_t step,
                                                       int64_t epoch) const {
  auto order = row_units(e, all_rows(e), algorithm_.needs());
  if (epoch > 0) {
    const Philox draws(seed, Purpose::shuffle, step, uint64_t(epoch));
    for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[size_t(draws.uniform(i) * double(i))]);
  }
  std::vector<std::vector<int64_t>> result;
  for (const auto& [first, last, tokens] : order) {
    if (result.empty() || int64_t(result.back().size()) + last - first > batching_.mini_batch_size)
      result.emplace_back();
    for (int64_t r = first; r < last; ++r) result.back().push_back(r);
  }
  return result;
}

Dealing Learner::dealt(const Experience& e, const std::vector<int64_t>& rows) const {
  // A raw loss is of all rows of the minibatch at once.
  const bool whole = algorithm_.needs().form == DSE_FORM_RAW;
  Dealing dealing = deal(row_units(e, rows, algorithm_.needs()), ranks_.size(), whole ? 0 : batching_.micro_batch_size);
  for (auto& of_rank : dealing.rows)
    for (auto& row : of_rank) row = rows[size_t(row)];
  return dealing;
}

uint32_t Learner::columns() const {
  const bool corrects = batching_.correction.how != Correction::none;
  return algorithm_.needs().columns | (corrects ? DSE_COLUMN_OLD_LOGP | DSE_COLUMN_ROLLOUT_LOGP : 0);
}

void Learner::allocate(Experience& e) const {
  dse_needs needs = algorithm_.needs();
  needs.columns = columns();
  e.allocate(needs);
}

void Learner::fill_part(Experience& e, const std::vector<int64_t>& rows, bool told_logp, bool ahead) {
  const uint32_t wanted = columns(), trained = ahead ? algorithm_.needs().columns : 0;
  const Device& device = roles_.device();
  const Experience part = e.subset(rows);
  const Selection s = select(part, device);
  std::vector<float> column;
  // keep: where the outputs are left for the update, attached to their graph; or null.
  const auto fill = [&](const Model& model, uint32_t bit, std::vector<float>& to, Phase phase, bool adapted,
                        Outputs* keep) {
    if (!(wanted & bit)) return;
    const auto scope = phases_.enter(phase);
    const at::AutoGradMode grad(keep != nullptr);
    const bool critic = bit == DSE_COLUMN_OLD_VALUE, entropy = keep && !critic && tells_entropy(e);
    Outputs out =
        forward(model, critic ? select(part, device, true) : s, batching_.temperature, entropy, false, adapted);
    to_column(out.value.defined() ? out.value : out.logp, column);
    put_entries(e.offsets, rows, column, to);
    if (keep) *keep = std::move(out);
  };
  // The reference first: then nothing is kept yet.
  if (roles_.reference) fill(roles_.reference->model, DSE_COLUMN_REF_LOGP, e.ref_logp, Phase::score, true, nullptr);
  if (roles_.reference_is_base)
    fill(roles_.actor->model, DSE_COLUMN_REF_LOGP, e.ref_logp, Phase::score, false, nullptr);
  if (roles_.actor && !told_logp)
    fill(roles_.actor->model, DSE_COLUMN_OLD_LOGP, e.old_logp, Phase::actor, true,
         trained & DSE_COLUMN_LOGP ? &ahead_.actor : nullptr);
  if (roles_.critic)
    fill(roles_.critic->model, DSE_COLUMN_OLD_VALUE, e.old_value, Phase::critic, true,
         trained & DSE_COLUMN_VALUE ? &ahead_.critic : nullptr);
}

bool Learner::takes_rollout_logp(const Experience& e) const {
  return batching_.own_rollouts && roles_.actor && roles_.actor->model.exact_rollouts() && !e.old_logp.empty() &&
         !e.logp.empty() && std::ranges::all_of(e.rows, [](const auto& row) {
           return int64_t(row->rollout_logp.size()) == row->answer_size();
         });
}

bool Learner::tells_entropy(const Experience& e) const {
  return algorithm_.needs().source == DSE_SOURCE_ROLLOUT && !e.old_logp.empty();
}

void Learner::fill_columns(Experience& e, MetricMeans& means, bool then_update) {
  at::NoGradGuard no_grad;
  ahead_ = {};
  const bool told_logp = takes_rollout_logp(e);
  std::vector<std::vector<int64_t>> rows(size_t(ranks_.size()));
  ranks_.together([&] {
    const auto all = minibatches(e, 0, 0, 0);
    for (const auto& minibatch : all) {
      const Dealing dealing = dealt(e, minibatch);
      const bool ahead = then_update && all.size() == 1 && dealing.micro_batches == 1;
      for (size_t r = 0; r < rows.size(); ++r)
        rows[r].insert(rows[r].end(), dealing.rows[r].begin(), dealing.rows[r].end());
      for (int64_t m = 0; m < dealing.micro_batches; ++m)
        fill_part(e, dealing.micro_batch(ranks_.rank(), m), told_logp, ahead);
    }
  });
  gather_rows(ranks_, e.offsets, rows, {&e.old_logp, &e.old_value, &e.ref_logp});
  if (told_logp)
    for (size_t r = 0; r < e.rows.size(); ++r)
      std::ranges::copy(e.rows[r]->rollout_logp, e.old_logp.begin() + e.offsets[r]);
  if (algorithm_.needs().source == DSE_SOURCE_ROLLOUT && !e.old_logp.empty() && !e.ref_logp.empty()) add_kl(e, means);
  add_importance_ratios(e, algorithm_.needs(), batching_.correction, means);
}

Learner::Part Learner::forward_part(const Experience& minibatch, const std::vector<int64_t>& rows,
                                    const MinibatchReport& report, MetricSink& means) {
  const auto& needs = algorithm_.needs();
  Part part{minibatch.subset(rows)};
  Experience& micro = part.rows;
  const Selection s = select(micro, roles_.device());
  const bool entropy = needs.columns & DSE_COLUMN_ENTROPY;
  const auto training = [](Outputs& ahead, const auto& anew) {
    const bool made = at::GradMode::is_enabled() && (ahead.logp.defined() || ahead.value.defined());
    return made ? std::exchange(ahead, {}) : anew();
  };
  if (roles_.actor && (needs.columns & DSE_COLUMN_LOGP)) {
    const auto phase = phases_.enter(Phase::actor);
    part.actor = training(ahead_.actor, [&] {
      return forward(roles_.actor->model, s, batching_.temperature, entropy || report.entropy, false);
    });
    to_column(part.actor.logp, micro.logp);
    if (entropy) to_column(part.actor.entropy, micro.entropy);
    if (report.entropy) add_entropy(part.actor, means);
  }
  if (roles_.critic && (needs.columns & DSE_COLUMN_VALUE)) {
    const auto phase = phases_.enter(Phase::critic);
    part.critic = training(ahead_.critic, [&] {
      return forward(roles_.critic->model, select(micro, roles_.device(), true), 1.0, false, false);
    });
    to_column(part.critic.value, micro.value);
  } else if (roles_.reward && (needs.columns & DSE_COLUMN_VALUE)) {
    const auto phase = phases_.enter(Phase::actor);
    part.reward = forward(roles_.reward->model, s, 1.0, false, true);
    to_column(part.reward.value, micro.value);
  }
  return part;
}

void Learner::backward_part(const Part& part, const WeightedLoss& loss) {
  const auto run = [&](const Outputs& out, Phase which) {
    if (!out.logp.defined() && !out.value.defined()) return;
    const auto phase = phases_.enter(which);
    backward(out, loss.d_logp, loss.d_entropy, loss.d_value);
  };
  run(part.actor, Phase::actor);
  run(part.critic, Phase::critic);
  run(part.reward, Phase::actor);
}

Learner::Accumulated Learner::accumulate_rows(Experience& minibatch, const Dealing& dealing, MetricSink& means,
                                              bool train, const MinibatchReport& report) {
  Accumulated sums;
  const auto correction = train ? batching_.correction : ImportanceCorrection{};
  ranks_.together([&] {
    const double n = normaliser(minibatch, algorithm_.needs());
    for (int64_t m = 0; m < dealing.micro_batches; ++m) {
      const auto rows = dealing.micro_batch(ranks_.rank(), m);
      Part part = forward_part(minibatch, rows, report, means);
      if (report.rollout) put_entries(minibatch.offsets, rows, part.rows.logp, minibatch.logp);
      const WeightedLoss loss = has_values() ? weighted_loss(algorithm_, part.rows, n, means, &ranks_, correction)
                                             : without_slopes(part.rows);
      sums.loss += loss.loss;
      sums.kl += kl_from_sampler(part.rows);
      if (train) backward_part(part, loss);
    }
  });
  return sums;
}

// Every rank has the loss of all rows, and keeps its own rows' slopes.
Learner::Accumulated Learner::accumulate_raw(Experience& minibatch, const Dealing& dealing, MetricSink& means,
                                             bool train, const MinibatchReport& report) {
  const auto& rows = dealing.rows[size_t(ranks_.rank())];
  Part part;
  ranks_.together([&] {
    part = forward_part(minibatch, rows, report, means);
    put_entries(minibatch.offsets, rows, part.rows.logp, minibatch.logp);
    put_entries(minibatch.offsets, rows, part.rows.entropy, minibatch.entropy);
    put_entries(minibatch.offsets, rows, part.rows.value, minibatch.value);
  });
  gather_rows(ranks_, minibatch.offsets, dealing.rows, {&minibatch.logp, &minibatch.entropy, &minibatch.value});
  WeightedLoss loss;
  MetricParts parts;
  ranks_.together([&] {
    loss = has_values() ? weighted_loss(algorithm_, minibatch, normaliser(minibatch, algorithm_.needs()), parts)
                        : without_slopes(minibatch);
    for (auto* slopes : {&loss.d_logp, &loss.d_entropy, &loss.d_value})
      *slopes = entries_of(minibatch.offsets, rows, *slopes);
    if (train) backward_part(part, loss);
  });
  const double kl = kl_from_sampler(part.rows);
  if (ranks_.rank() != 0) return {0, kl};  // loss and metrics count once
  parts.add_to(means);
  return {loss.loss, kl};
}

Learner::Accumulated Learner::accumulate(Experience& minibatch, MetricMeans& means, bool train,
                                         const MinibatchReport& report) {
  at::AutoGradMode grad(train);
  const Dealing dealing = dealt(minibatch, all_rows(minibatch));
  MetricParts parts;
  const bool raw = algorithm_.needs().form == DSE_FORM_RAW;
  const Accumulated own = raw ? accumulate_raw(minibatch, dealing, parts, train, report)
                              : accumulate_rows(minibatch, dealing, parts, train, report);
  if (report.rollout) {
    if (!raw) gather_rows(ranks_, minibatch.offsets, dealing.rows, {&minibatch.logp});
    add_rollout_difference(minibatch, means);
  }
  double sums[2] = {own.loss, own.kl};
  ranks_.sum(sums);
  agree_metrics(parts, ranks_, means);
  const double tokens = std::accumulate(minibatch.mask.begin(), minibatch.mask.end(), 0.0);
  return {sums[0], sums[1] / std::max(1.0, tokens)};
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
  double sum[1] = {0};
  dse_needs records{};  // texts are no pairs
  records.source = DSE_SOURCE_RECORDS;
  ranks_.together([&] {
    const Dealing dealing = deal(row_units(texts, all_rows(texts), records), ranks_.size(), batching_.micro_batch_size);
    for (int64_t m = 0; m < dealing.micro_batches; ++m) {
      const Experience micro = texts.subset(dealing.micro_batch(ranks_.rank(), m));
      const Tensor logp = forward(roles_.actor->model, select(micro, roles_.device()), 1.0, false, false).logp;
      const Tensor mask = roles_.device().upload(weights_of(micro));
      sum[0] -= on_host((logp.detach() * mask).sum()).item<double>();
      const MemoryScope scope(MemoryTag::activations);
      torch::autograd::backward({logp}, {mask * (-mixture_->coefficient / tokens)});
    }
  });
  ranks_.sum(sum);
  const double loss = sum[0] / tokens;
  DSE_CHECK_USER(std::isfinite(loss), "the loss on the mixture's texts is not finite: lower the learning rate");
  return loss;
}

// False, and nothing is changed, where the policy has moved too far from the one that sampled.
bool Learner::update_on(Experience& minibatch, const std::function<double(const OptimizerConfig&)>& learning_rate,
                        MetricMeans& means, const MinibatchReport& report) {
  roles_.each_trained([](const RoleEntry&, Role& role) { role.model.zero_grad(); });
  const Accumulated sums = accumulate(minibatch, means, true, report);
  if (ranks_.agree(batching_.target_kl > 0 && sums.kl > 1.5 * batching_.target_kl)) return false;
  means.add("loss", sums.loss);
  if (mixture_) means.add("ptx_loss", accumulate_texts());
  const Communicator::Purpose purpose(ranks_, "gradients and weights");
  roles_.each_trained([&](const RoleEntry&, const Role& role) {
    for (const auto* unit : role.optimizer->units())
      if (!unit->grad_cut()) ranks_.all_reduce(unit->grad());
  });
  roles_.each_trained([&](const RoleEntry& entry, Role& role) {
    const auto phase = phases_.enter(entry.phase);
    const std::string prefix = prefix_of(entry, algorithm_.needs().trained);
    const double rate = learning_rate(role.settings);
    means.add(prefix + "grad_norm", role.step(rate, ranks_));
    means.add(prefix + "learning_rate", rate);
  });
  return true;
}

void Learner::update(Experience& e, uint64_t seed, uint64_t step,
                     const std::function<double(const OptimizerConfig&)>& learning_rate, MetricMeans& means) {
  bool going = true;
  double skipped = 0;
  const bool sampled = algorithm_.needs().source == DSE_SOURCE_ROLLOUT;
  MinibatchReport report{.entropy = tells_entropy(e), .rollout = sampled && !e.logp.empty()};
  for (int64_t epoch = 0; epoch < batching_.epochs; ++epoch, report = {})
    for (const auto& rows : minibatches(e, seed, step, epoch)) {
      Experience minibatch = e.subset(rows);
      if (going) going = update_on(minibatch, learning_rate, means, report);
      skipped += !going;
      report.rollout = false;
    }
  ahead_ = {};
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
