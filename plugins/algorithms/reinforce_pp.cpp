// REINFORCE++ (Hu 2025): PPO's clipped loss without a critic. The return of a token is the score less the KL penalties
// from it to the end; returns are whitened over the whole rollout. With baseline = "group" the mean score of a prompt's
// answers is taken off first, and the KL goes into the loss as its k2 estimate (REINFORCE++-baseline).
#include <dsengine/algorithm.hpp>

struct ReinforcePp {
  static constexpr const char* summary = "REINFORCE++: clipped policy gradient with globally whitened returns";
  dse::Needs needs{.roles = dse::actor | dse::reference | dse::reward};
  double kl_coef, clip_ratio, gamma;
  bool group_baseline;

  explicit ReinforcePp(dse::Options& o)
      : kl_coef(o.real("kl_coef", 0.05, "KL penalty: in the token reward (k1), with a baseline in the loss (k2)",
                       {0, dse::infinity})),
        clip_ratio(o.real("clip_ratio", 0.2, "how far the probability ratio may move the policy", {0, 1})),
        gamma(o.real("gamma", 1.0, "discount", {0, 1})),
        group_baseline(o.string("baseline", "none", "none, or group: the mean score of the prompt's answers",
                                "none|group") == "group") {
    if (group_baseline) needs.group_size = 2;
  }

  void prepare(dse::Batch& batch) const {
    for (auto group : batch.groups()) {
      double mean = 0;
      for (const auto& row : group) mean += row.score / double(group.size());
      for (auto& row : group) {
        double value = row.score - (group_baseline ? mean : 0);
        for (auto t = row.size(); t-- > 0;) {
          if (t + 1 < row.size()) value *= gamma;
          if (!group_baseline) value -= kl_coef * (row.old_logp[t] - row.ref_logp[t]);
          row.advantage[t] = float(value);
        }
      }
    }
    batch.whiten_advantage();
  }

  template <class Real>
  Real token_loss(const dse::Token<Real>& t) const {
    const Real ratio = exp(t.logp - t.old_logp);
    const Real policy = max(-t.advantage * ratio, -t.advantage * clamp(ratio, 1 - clip_ratio, 1 + clip_ratio));
    return group_baseline ? policy + kl_coef * 0.5 * square(t.logp - t.ref_logp) : policy;  // k2
  }

  template <class Real>
  void token_metrics(const dse::Token<Real>& t, dse::Metrics& metric) const {
    const double log_ratio = (t.logp - t.old_logp).value, ratio = std::exp(log_ratio);
    metric("clip_fraction", std::abs(ratio - 1) > clip_ratio);
    metric("approx_kl", ratio - 1 - log_ratio);
    metric("ratio", ratio);
  }
};
DSE_ALGORITHM("reinforce++", ReinforcePp)
