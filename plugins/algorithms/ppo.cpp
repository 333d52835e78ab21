// Proximal Policy Optimisation with a critic (Schulman et al. 2017), as InstructGPT runs it:
// token reward = -kl_coef * (logp - ref_logp), plus the clipped score on the last token.
#include <dsengine/algorithm.hpp>

struct Ppo {
  static constexpr const char* summary = "proximal policy optimisation with a critic and a KL penalty";
  static constexpr dse::Needs needs{.roles = dse::actor | dse::reference | dse::critic | dse::reward};
  double kl_coef, gamma, lambda, clip_ratio, clip_value, clip_reward;
  bool whiten;

  explicit Ppo(dse::Options& o)
      : kl_coef(o.real("kl_coef", 0.1, "KL penalty in the token reward", {0, dse::infinity})),
        gamma(o.real("gamma", 1.0, "discount", {0, 1})),
        lambda(o.real("lambda", 0.95, "GAE: bias against variance (Schulman et al. 2016)", {0, 1})),
        clip_ratio(o.real("clip_ratio", 0.2, "how far the probability ratio may move the policy", {0, 1})),
        clip_value(o.real("clip_value", 0.2, "how far the value may move from the old one", {0, dse::infinity})),
        clip_reward(o.real("clip_reward", 5.0, "bound of the score", {0, dse::infinity})),
        whiten(o.boolean("whiten", true, "advantages to mean 0, variance 1 over the rollout")) {}

  void prepare(dse::Batch& batch) const {
    for (auto& row : batch.rows()) {
      double advantage = 0, next_value = 0;
      for (auto t = row.size(); t-- > 0;) {
        double reward = -kl_coef * (row.old_logp[t] - row.ref_logp[t]);
        if (t + 1 == row.size()) reward += std::clamp(row.score, -clip_reward, clip_reward);
        const double delta = reward + gamma * next_value - row.old_value[t];
        advantage = delta + gamma * lambda * advantage;
        row.advantage[t] = float(advantage);
        row.target[t] = float(advantage + row.old_value[t]);
        next_value = row.old_value[t];
      }
    }
    batch.metric("explained_variance", batch.explained_variance());
    if (whiten) batch.whiten_advantage();  // over all ranks
  }

  template <class Real>
  Real policy_loss(const dse::Token<Real>& t) const {
    const Real ratio = exp(t.logp - t.old_logp);
    return max(-t.advantage * ratio, -t.advantage * clamp(ratio, 1 - clip_ratio, 1 + clip_ratio));
  }

  template <class Real>
  Real value_loss(const dse::Token<Real>& t) const {
    const Real bounded = t.old_value + clamp(t.value - t.old_value, -clip_value, clip_value);
    return 0.5 * max(square(t.value - t.target), square(bounded - t.target));
  }

  template <class Real>
  Real token_loss(const dse::Token<Real>& t) const {
    return policy_loss(t) + value_loss(t);
  }

  template <class Real>
  void token_metrics(const dse::Token<Real>& t, dse::Metrics& metric) const {
    const double log_ratio = (t.logp - t.old_logp).value, ratio = std::exp(log_ratio);
    metric("policy_loss", policy_loss(t).value);
    metric("value_loss", value_loss(t).value);
    metric("clip_fraction", std::abs(ratio - 1) > clip_ratio);
    metric("approx_kl", ratio - 1 - log_ratio);
    metric("ratio", ratio);
  }
};
DSE_ALGORITHM("ppo", Ppo)
