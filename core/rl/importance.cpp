#include "rl/importance.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"
#include "plugin/instance.h"

namespace dsengine {

namespace {

struct Unit {
  double ratio = 1;      // infinite where the policy that answered gave it no probability at all
  bool counted = false;  // it has loss tokens
};

std::vector<Unit> units_of(const Experience& e, uint32_t form) {
  const bool by_token = form == DSE_FORM_TOKEN || form == DSE_FORM_RAW;
  const size_t rows_a_unit = form == DSE_FORM_PAIR ? 2 : 1;
  std::vector<Unit> units(by_token ? size_t(e.token_count()) : e.rows.size() / rows_a_unit);
  std::vector<double> log_ratio(units.size());
  for (size_t r = 0; r < e.rows.size(); ++r)
    for (auto t = size_t(e.offsets[r]); t < size_t(e.offsets[r + 1]); ++t) {
      if (e.mask[t] == 0) continue;
      const size_t u = by_token ? t : r / rows_a_unit;
      log_ratio[u] += double(e.old_logp[t]) - e.rollout_logp[t];
      DSE_CHECK_USER(!std::isnan(log_ratio[u]),
                     "rollout.correction: a ratio of probabilities is no number: the log-probability of token {} of an "
                     "answer to prompt {} is {}, and the rollout told {}",
                     t - size_t(e.offsets[r]), e.prompt[r], e.old_logp[t], e.rollout_logp[t]);
      units[u].counted = true;
    }
  for (size_t u = 0; u < units.size(); ++u) units[u].ratio = std::exp(log_ratio[u]);
  return units;
}

}  // namespace

std::vector<double> importance_factors(const Experience& e, const dse_needs& needs,
                                       const ImportanceCorrection& correction) {
  std::vector<double> factors(size_t(unit_count(needs, e.row_count(), e.token_count())), 1);
  if (correction.how == Correction::none || needs.form == DSE_FORM_RAW) return factors;
  const double beyond = correction.how == Correction::truncate ? correction.bound : 0;
  std::ranges::transform(units_of(e, needs.form), factors.begin(),
                         [&](const Unit& unit) { return unit.ratio <= correction.bound ? unit.ratio : beyond; });
  return factors;
}

void add_importance_ratios(const Experience& e, const dse_needs& needs, const ImportanceCorrection& correction,
                           MetricSink& means) {
  if (correction.how == Correction::none) return;
  double sum = 0, peak = 0, cut = 0, count = 0;
  for (const Unit& unit : units_of(e, needs.form)) {
    if (!unit.counted) continue;
    sum += unit.ratio, peak = std::max(peak, unit.ratio), cut += unit.ratio > correction.bound, count += 1;
  }
  if (count == 0) return;
  means.add("rollout_ratio_mean", sum / count, 1);
  means.add("rollout_ratio_max", peak, 1);
  means.add("rollout_ratio_cut", cut / count, 1);
}

}  // namespace dsengine
