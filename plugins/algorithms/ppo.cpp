// Proximal Policy Optimisation with a critic (Schulman et al. 2017), as InstructGPT runs it:
// token reward = -kl_coef * KL(token), plus the clipped score on the last token.
#include <dsengine/algorithm.hpp>

struct Ppo {
  static constexpr const char* summary = "proximal policy optimisation with a critic and a KL penalty";
  dse::Needs needs{.roles = dse::actor | dse::reference | dse::critic | dse::reward};
  double kl_coef, gamma, lambda, clip_ratio, clip_value, clip_reward, dual_clip, entropy_coef, kl_target, kl_horizon;
  std::string kl_estimator;
  bool whiten_rewards, whiten;

  explicit Ppo(dse::Options& o)
      : kl_coef(o.real("kl_coef", 0.1, "KL penalty in the token reward", {0, dse::infinity})),
        gamma(o.real("gamma", 1.0, "discount", {0, 1})),
        lambda(o.real("lambda", 0.95, "GAE: bias against variance (Schulman et al. 2016)", {0, 1})),
        clip_ratio(o.real("clip_ratio", 0.2, "how far the probability ratio may move the policy", {0, 1})),
        clip_value(o.real("clip_value", 0.2, "how far the value may move from the old one", {0, dse::infinity})),
        clip_reward(o.real("clip_reward", 5.0, "bound of the score", {0, dse::infinity})),
        dual_clip(o.real("dual_clip", 0, "bounds a bad token's loss at so many advantages (Ye et al. 2020: 3); 0: off",
                         {0, dse::infinity})),
        entropy_coef(o.real("entropy_coef", 0, "bonus for the policy's entropy, nats", {0, dse::infinity})),
        kl_target(o.real("kl_target", 0, "adaptive kl_coef: KL of an answer to hold (Ziegler et al. 2019); 0: fixed",
                         {0, dse::infinity})),
        kl_horizon(o.real("kl_horizon", 10000, "adaptive kl_coef: answers over which it adapts", {1, dse::infinity})),
        kl_estimator(o.string("kl_estimator", "k1",
                              "of a token's KL (Schulman 2020): d, d^2 / 2, or exp(-d) - 1 + d; d = logp - ref_logp",
                              "k1|k2|k3")),
        whiten_rewards(o.boolean("whiten_rewards", false, "token rewards to variance 1, their mean kept (TRL)")),
        whiten(o.boolean("whiten", true, "advantages to mean 0, variance 1 over the rollout")) {
    needs.entropy = entropy_coef > 0;
  }

  double kl_of(double d) const {
    return kl_estimator == "k1" ? d : kl_estimator == "k2" ? d * d / 2 : std::expm1(-d) + d;
  }

  void prepare(dse::Batch& batch) {
    double kl_and_rows[2] = {0, double(batch.rows().size())};
    for (auto& row : batch.rows())  // the column holds rewards first
      for (size_t t = 0; t < row.size(); ++t) {
        const double log_ratio = row.old_logp[t] - row.ref_logp[t], last = t + 1 == row.size();
        row.advantage[t] = float(last * std::clamp(row.score, -clip_reward, clip_reward) - kl_coef * kl_of(log_ratio));
        kl_and_rows[0] += log_ratio;
      }
    if (whiten_rewards) batch.whiten_advantage(/*shift_mean=*/false);
    for (auto& row : batch.rows()) {
      double advantage = 0, next_value = 0;
      for (auto t = row.size(); t-- > 0;) {
        const double delta = row.advantage[t] + gamma * next_value - row.old_value[t];
        advantage = delta + gamma * lambda * advantage;
        row.advantage[t] = float(advantage);
        row.target[t] = float(advantage + row.old_value[t]);
        next_value = row.old_value[t];
      }
    }
    batch.metric("explained_variance", batch.explained_variance());
    if (whiten) batch.whiten_advantage();  // over all ranks
    if (kl_target == 0) return;
    batch.metric("kl_coef", kl_coef);
    batch.all_reduce_sum(kl_and_rows);
    const double error = std::clamp(kl_and_rows[0] / kl_and_rows[1] / kl_target - 1, -0.2, 0.2);
    kl_coef *= 1 + error * kl_and_rows[1] / kl_horizon;
  }

  // The adapted coefficient is what a checkpoint must hold.
  std::string save() const { return {reinterpret_cast<const char*>(&kl_coef), sizeof kl_coef}; }
  void load(std::string_view state) {
    if (state.size() == sizeof kl_coef) std::memcpy(&kl_coef, state.data(), sizeof kl_coef);
  }

  template <class Real>
  Real policy_loss(const dse::Token<Real>& t) const {
    const Real ratio = exp(t.logp - t.old_logp);
    const Real loss = max(-t.advantage * ratio, -t.advantage * clamp(ratio, 1 - clip_ratio, 1 + clip_ratio));
    return dual_clip > 0 && t.advantage < 0 ? min(loss, Real(-t.advantage * dual_clip)) : loss;
  }

  template <class Real>
  Real value_loss(const dse::Token<Real>& t) const {
    const Real bounded = t.old_value + clamp(t.value - t.old_value, -clip_value, clip_value);
    return 0.5 * max(square(t.value - t.target), square(bounded - t.target));
  }

  template <class Real>
  Real token_loss(const dse::Token<Real>& t) const {
    const Real loss = policy_loss(t) + value_loss(t);
    return entropy_coef > 0 ? loss - entropy_coef * t.entropy : loss;
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
