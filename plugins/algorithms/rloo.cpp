// REINFORCE leave-one-out (Ahmadian et al. 2024, "Back to Basics"): an answer's baseline is the mean reward of the
// other answers to its prompt; the whole answer is one action. The KL penalty is part of the reward, and several
// epochs on one rollout are held together by a clipped sequence ratio, as in TRL's RLOOTrainer.
#include <dsengine/algorithm.hpp>

struct Rloo {
  static constexpr const char* summary = "REINFORCE with a leave-one-out baseline";
  static constexpr dse::Needs needs{
      .roles = dse::actor | dse::reference | dse::reward, .normalisation = dse::per_row, .group_size = 2};
  double kl_coef, clip_ratio;
  bool normalize_advantage;

  explicit Rloo(dse::Options& o)
      : kl_coef(o.real("kl_coef", 0.05, "KL penalty in the reward of an answer (k1, summed)", {0, dse::infinity})),
        clip_ratio(o.real("clip_ratio", 0.2, "how far the sequence's probability ratio may move", {0, 1})),
        normalize_advantage(
            o.boolean("normalize_advantage", false, "advantages to mean 0, variance 1 over the rollout")) {}

  void prepare(dse::Batch& batch) const {
    for (auto group : batch.groups()) {
      double total = 0;
      std::vector<double> reward;
      for (const auto& row : group) {
        double kl = 0;
        for (size_t t = 0; t < row.size(); ++t) kl += row.old_logp[t] - row.ref_logp[t];
        reward.push_back(row.score - kl_coef * kl);
        total += reward.back();
      }
      for (size_t i = 0; i < group.size(); ++i) {
        const double others = group.size() > 1 ? (total - reward[i]) / double(group.size() - 1) : 0;
        for (auto& a : group[i].advantage) a = float(reward[i] - others);
      }
    }
    if (normalize_advantage) batch.whiten_advantage();
  }

  template <class Real>
  Real row_loss(const dse::Row<Real>& row) const {
    const Real ratio = exp(row.logp_sum() - row.old_logp_sum());
    const double advantage = row.advantage(0);
    return max(-advantage * ratio, -advantage * clamp(ratio, 1 - clip_ratio, 1 + clip_ratio));
  }

  template <class Real>
  void row_metrics(const dse::Row<Real>& row, dse::Metrics& metric) const {
    const double ratio = std::exp(row.logp_sum().value - row.old_logp_sum());
    metric("clip_fraction", std::abs(ratio - 1) > clip_ratio);
    metric("ratio", ratio);
  }
};
DSE_ALGORITHM("rloo", Rloo)
