// Group sequence policy optimisation (Zheng et al. 2025, equations 5 to 7): GRPO's advantages, but ratio and clip
// belong to the whole answer: s = exp(mean over its tokens of log p - log old p). Clips are far tighter than a token
// ratio's.
#include <dsengine/algorithm.hpp>

struct Gspo {
  static constexpr const char* summary = "group sequence policy optimisation";
  static constexpr dse::Needs needs{
      .roles = dse::actor | dse::reference | dse::reward, .normalisation = dse::per_row, .group_size = 2};
  double clip_ratio, clip_ratio_high, kl_coef;

  explicit Gspo(dse::Options& o)
      : clip_ratio(o.real("clip_ratio", 3e-4, "how far below 1 the sequence ratio may move the policy", {0, 1})),
        clip_ratio_high(o.real("clip_ratio_high", 4e-4, "how far above 1", {0, dse::infinity})),
        kl_coef(o.real("kl_coef", 0, "weight of the mean k3 estimate of the KL to the reference", {0, dse::infinity})) {
  }

  void prepare(dse::Batch& batch) const {
    for (auto group : batch.groups()) {
      double mean = 0, squares = 0;
      for (const auto& row : group) mean += row.score / double(group.size());
      for (const auto& row : group) squares += std::pow(row.score - mean, 2);
      const double deviation = group.size() > 1 ? std::sqrt(squares / double(group.size() - 1)) : 0;
      for (auto& row : group)
        for (auto& a : row.advantage) a = float((row.score - mean) / (deviation + 1e-4));
    }
  }

  template <class Real>
  Real row_loss(const dse::Row<Real>& row) const {
    const double tokens = double(std::max<int64_t>(1, row.loss_tokens())), advantage = row.advantage(0);
    const Real ratio = exp((row.logp_sum() - row.old_logp_sum()) / tokens);
    Real loss = max(-advantage * ratio, -advantage * clamp(ratio, 1 - clip_ratio, 1 + clip_ratio_high));
    if (kl_coef == 0) return loss;
    for (int64_t t = 0; t < row.size(); ++t) {
      if (row.masked(t)) continue;
      const Real to_reference = row.ref_logp(t) - row.logp(t);
      loss += kl_coef / tokens * (exp(to_reference) - to_reference - 1.0);
    }
    return loss;
  }

  template <class Real>
  void row_metrics(const dse::Row<Real>& row, dse::Metrics& metric) const {
    const double tokens = double(std::max<int64_t>(1, row.loss_tokens()));
    const double ratio = std::exp((row.logp_sum().value - row.old_logp_sum()) / tokens);
    metric("clip_fraction", ratio < 1 - clip_ratio || ratio > 1 + clip_ratio_high);
    metric("ratio", ratio);
  }
};
DSE_ALGORITHM("gspo", Gspo)
