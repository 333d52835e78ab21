#include "rl/objective.h"

#include <algorithm>
#include <cmath>
#include <exception>
#include <functional>

#include "base/check.h"

namespace dsengine {

namespace {

struct HostCalls {
  MetricSink* means;
  Communicator* ranks = nullptr;
  std::exception_ptr error{};  // of a collective: it may not cross the plugin
};

void attach(dse_batch& batch, HostCalls& calls) {
  batch.context = &calls;
  batch.metric = [](void* context, const char* name, double value, double weight) {
    static_cast<HostCalls*>(context)->means->add(name, value, weight);
  };
  batch.all_reduce_sum = [](void* context, double* values, int64_t count) -> dse_status {
    auto& calls = *static_cast<HostCalls*>(context);
    try {
      if (calls.ranks) calls.ranks->sum({values, size_t(count)});
      return DSE_OK;
    } catch (...) {
      calls.error = std::current_exception();
      return DSE_ERROR;
    }
  };
}

// A collective's error is the cause of what the plugin then says.
template <class Call>
void call_with(const HostCalls& calls, const Call& call) {
  try {
    call();
  } catch (const UserError&) {
    if (calls.error) std::rethrow_exception(calls.error);
    throw;
  }
  if (calls.error) std::rethrow_exception(calls.error);
}

// What each unit's loss is multiplied by: its row's weight, its mask, and 1 / normaliser.
std::vector<double> unit_weights(const Experience& e, const dse_needs& needs, double normaliser) {
  std::vector<double> weights;
  for (size_t r = 0; r < e.rows.size(); ++r) {
    const double row = e.weight[r] / normaliser;
    if (needs.form == DSE_FORM_ROW || (needs.form == DSE_FORM_PAIR && r % 2 == 0)) weights.push_back(row);
    if (needs.form != DSE_FORM_TOKEN) continue;
    double in_row = 0;
    for (int64_t t = e.offsets[r]; t < e.offsets[r + 1]; ++t) in_row += e.mask[size_t(t)];
    const double share = needs.normalisation == DSE_NORM_ROW_TOKEN_MEAN && in_row > 0 ? row / in_row : row;
    for (int64_t t = e.offsets[r]; t < e.offsets[r + 1]; ++t) weights.push_back(share * e.mask[size_t(t)]);
  }
  if (needs.form == DSE_FORM_RAW) weights.push_back(1);
  return weights;
}

// The weight of the unit that a token belongs to.
std::vector<double> token_weights(const Experience& e, const dse_needs& needs, const std::vector<double>& units) {
  if (needs.form == DSE_FORM_TOKEN) return units;
  std::vector<double> weights;
  for (size_t r = 0; r < e.rows.size(); ++r) {
    const size_t unit = needs.form == DSE_FORM_ROW ? r : needs.form == DSE_FORM_PAIR ? r / 2 : 0;
    weights.insert(weights.end(), size_t(e.offsets[r + 1] - e.offsets[r]), units[unit]);
  }
  return weights;
}

}  // namespace

double normaliser(const Experience& e, const dse_needs& needs) {
  double rows = 0, tokens = 0;
  for (size_t r = 0; r < e.rows.size(); ++r) {
    double in_row = 0;
    for (int64_t t = e.offsets[r]; t < e.offsets[r + 1]; ++t) in_row += e.mask[size_t(t)];
    tokens += in_row * e.weight[r];
    if (in_row > 0) rows += e.weight[r];
  }
  if (needs.form == DSE_FORM_PAIR) rows /= 2;
  DSE_CHECK_USER(tokens > 0, "a minibatch has no loss token at all: its masks or weights are all zero");
  if (needs.form == DSE_FORM_RAW) return 1;
  if (needs.normalisation == DSE_NORM_CONSTANT) return rows * needs.normalisation_constant;
  return needs.normalisation == DSE_NORM_TOKENS ? tokens : rows;
}

void prepare(AlgorithmInstance& algorithm, Experience& e, MetricSink& means) {
  HostCalls calls{&means};
  dse_batch batch = e.view(algorithm.needs().columns);
  attach(batch, calls);
  algorithm.prepare(batch);
}

WeightedLoss weighted_loss(AlgorithmInstance& algorithm, Experience& micro, double normaliser, MetricSink& means,
                           Communicator* ranks, const ImportanceCorrection& correction) {
  const auto& needs = algorithm.needs();
  HostCalls calls{&means, ranks};
  dse_batch batch = micro.view(needs.columns);
  attach(batch, calls);
  const auto tokens = size_t(micro.token_count());
  std::vector<double> loss(size_t(unit_count(needs, batch.rows, batch.tokens)));
  WeightedLoss result;
  result.d_logp.resize(micro.logp.empty() ? 0 : tokens);
  result.d_entropy.resize(micro.entropy.empty() ? 0 : tokens);
  result.d_value.resize(micro.value.empty() ? 0 : tokens);
  const auto data = [](std::vector<float>& v) { return v.empty() ? nullptr : v.data(); };
  dse_gradients gradients{sizeof(dse_gradients), 0, loss.data(), data(result.d_logp), data(result.d_entropy),
                          data(result.d_value)};
  call_with(calls, [&] { algorithm.loss(batch, gradients); });

  auto units = unit_weights(micro, needs, normaliser);
  std::ranges::transform(units, importance_factors(micro, needs, correction), units.begin(), std::multiplies());
  for (size_t u = 0; u < units.size(); ++u) result.loss += units[u] * loss[u];
  DSE_CHECK_USER(std::isfinite(result.loss),
                 "the loss is not finite: lower the learning rate, or look at the data of this step");
  const auto weights = token_weights(micro, needs, units);
  for (auto* column : {&result.d_logp, &result.d_entropy, &result.d_value})
    for (size_t t = 0; t < column->size(); ++t) (*column)[t] = float((*column)[t] * weights[t]);
  return result;
}

}  // namespace dsengine
