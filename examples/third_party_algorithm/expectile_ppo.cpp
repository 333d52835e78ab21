// PPO without value clipping, whose critic learns an expectile of the returns instead of their mean (implicit
// Q-learning, Kostrikov et al. 2022, equation 5): errors below weigh 1 - expectile, errors above weigh expectile.
#include <dsengine/algorithm.hpp>

struct ExpectilePpo {
  static constexpr const char* summary = "PPO with an expectile critic";
  static constexpr dse::Needs needs{.roles = dse::actor | dse::reference | dse::critic | dse::reward};
  double kl_coef, lambda, clip_ratio, expectile;

  explicit ExpectilePpo(dse::Options& o)
      : kl_coef(o.real("kl_coef", 0.05, "KL penalty in the token reward", {0, dse::infinity})),
        lambda(o.real("lambda", 0.95, "GAE: bias against variance", {0, 1})),
        clip_ratio(o.real("clip_ratio", 0.2, "how far the probability ratio may move", {0, 1})),
        expectile(o.real("expectile", 0.6, "0.5: the mean; more: optimistic", {0.01, 0.99})) {}

  void prepare(dse::Batch& batch) const {
    for (auto& row : batch.rows()) {
      double advantage = 0, next_value = 0;
      for (auto t = row.size(); t-- > 0;) {
        const double reward = -kl_coef * (row.old_logp[t] - row.ref_logp[t]) + (t + 1 == row.size() ? row.score : 0);
        advantage = reward + next_value - row.old_value[t] + lambda * advantage;
        row.advantage[t] = float(advantage);
        row.target[t] = float(advantage + row.old_value[t]);
        next_value = row.old_value[t];
      }
    }
    batch.whiten_advantage();
  }

  template <class Real>
  Real token_loss(const dse::Token<Real>& t) const {
    const Real ratio = exp(t.logp - t.old_logp), error = t.target - t.value;
    const double weight = error > Real(0) ? expectile : 1 - expectile;
    return max(-t.advantage * ratio, -t.advantage * clamp(ratio, 1 - clip_ratio, 1 + clip_ratio)) +
           weight * square(error);
  }
};
DSE_ALGORITHM("expectile_ppo", ExpectilePpo)
