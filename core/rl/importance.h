// Weights for answers of another policy than the one that is trained: narrower weights, other kernels, or a rollout of
// before.
//
//   const auto factors = importance_factors(micro, needs, {Correction::truncate, 2.0});  // one for each unit's loss
//   add_importance_ratios(experience, needs, correction, means);                          // once a rollout
//
// A unit's ratio is w = exp(sum of old_logp - rollout_logp over its loss tokens): its probability under the actor
// before the first update over that under the policy that answered. A unit is what the loss is of: a token, a row, or a
// pair, whose rows were drawn independently. Its factor is w up to the bound, above it the bound (truncate) or 0
// (mask). A raw loss is the plugin's to correct: its factor is 1, and its ratios are told by token.
//
// Sources: Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"; TRL's
// token_truncate and token_mask.
#pragma once
#include <vector>

#include "rl/experience.h"
#include "rl/metric_means.h"
#include "run/config.h"

namespace dsengine {

struct ImportanceCorrection {
  Correction how = Correction::none;
  double bound = 2;
};

// By unit, as unit_count has them; all 1 without a correction. UserError where a ratio is no number.
std::vector<double> importance_factors(const Experience& experience, const dse_needs& needs,
                                       const ImportanceCorrection& correction);

// "rollout_ratio_mean", "…_max" and "…_cut": of the units with loss tokens, w's mean, its largest, and the share of
// those above the bound. None without a correction.
void add_importance_ratios(const Experience& experience, const dse_needs& needs, const ImportanceCorrection& correction,
                           MetricSink& means);

}  // namespace dsengine
