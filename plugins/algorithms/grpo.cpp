// Group-relative policy optimisation (Shao et al. 2024, DeepSeekMath, equations 3 and 4): answers to one prompt are
// compared with each other instead of with a critic. Its later forms are options:
//   Dr. GRPO (Liu et al. 2025)  loss_type = "dr_grpo", scale_rewards = false
//   DAPO (Yu et al. 2025)       loss_type = "dapo", clip_ratio_high = 0.28, kl_coef = 0, overlong_penalty = 1
#include <dsengine/algorithm.hpp>

struct Grpo {
  static constexpr const char* summary = "group-relative policy optimisation; also Dr. GRPO and DAPO";
  dse::Needs needs{.roles = dse::actor | dse::reference | dse::reward, .group_size = 2};
  double kl_coef, clip_ratio, clip_ratio_high, overlong_penalty;
  bool scale_rewards;
  int64_t overlong_length, overlong_buffer;

  explicit Grpo(dse::Options& o)
      : kl_coef(o.real("kl_coef", 0.04, "weight of the k3 estimate of the KL to the reference, in the loss",
                       {0, dse::infinity})),
        clip_ratio(o.real("clip_ratio", 0.2, "how far below 1 the probability ratio may move the policy", {0, 1})),
        clip_ratio_high(o.real("clip_ratio_high", 0, "how far above 1; 0: as clip_ratio (DAPO's clip-higher: 0.28)",
                               {0, dse::infinity})),
        overlong_penalty(o.real("overlong_penalty", 0, "DAPO's soft punishment of long answers: taken from the score",
                                {0, dse::infinity})),
        scale_rewards(o.boolean("scale_rewards", true, "divide by the group's standard deviation")),
        overlong_length(o.integer("overlong_length", 128, "tokens at which the punishment is whole", {1, 1e9})),
        overlong_buffer(o.integer("overlong_buffer", 32, "tokens over which it grows to that", {1, 1e9})) {
    const auto type = o.string("loss_type", "grpo",
                               "grpo: mean over each answer's tokens, then over answers; dapo: over all tokens; "
                               "dr_grpo: sum over tokens divided by loss_length, then mean over answers",
                               "grpo|dapo|dr_grpo");
    needs.normalisation_constant = double(o.integer("loss_length", 128, "dr_grpo's divisor, tokens", {1, 1e9}));
    needs.normalisation = type == "grpo" ? dse::row_token_mean : type == "dapo" ? dse::per_token : dse::constant;
    if (clip_ratio_high == 0) clip_ratio_high = clip_ratio;
  }

  // Yu et al. 2025, equation 13.
  double overlong(size_t length) const {
    const double beyond = double(length) - double(overlong_length - overlong_buffer);
    return overlong_penalty * std::clamp(beyond / double(overlong_buffer), 0.0, 1.0);
  }

  void prepare(dse::Batch& batch) const {
    for (auto group : batch.groups()) {
      double mean = 0, squares = 0;
      for (const auto& row : group) mean += (row.score - overlong(row.size())) / double(group.size());
      for (const auto& row : group) squares += std::pow(row.score - overlong(row.size()) - mean, 2);
      const double deviation = group.size() > 1 ? std::sqrt(squares / double(group.size() - 1)) : 0;
      for (auto& row : group) {
        const double advantage = row.score - overlong(row.size()) - mean;
        for (auto& a : row.advantage) a = float(scale_rewards ? advantage / (deviation + 1e-4) : advantage);
      }
      batch.metric("group_reward_deviation", deviation);
      batch.metric("groups_without_signal", deviation < 1e-8);
    }
  }

  template <class Real>
  Real token_loss(const dse::Token<Real>& t) const {
    const Real ratio = exp(t.logp - t.old_logp), to_reference = t.ref_logp - t.logp;
    const Real kl = exp(to_reference) - to_reference - 1.0;  // k3
    return max(-t.advantage * ratio, -t.advantage * clamp(ratio, 1 - clip_ratio, 1 + clip_ratio_high)) + kl_coef * kl;
  }

  template <class Real>
  void token_metrics(const dse::Token<Real>& t, dse::Metrics& metric) const {
    const double log_ratio = (t.logp - t.old_logp).value, ratio = std::exp(log_ratio);
    metric("clip_fraction", t.advantage > 0 ? ratio > 1 + clip_ratio_high : ratio < 1 - clip_ratio);
    metric("approx_kl", ratio - 1 - log_ratio);
    metric("ratio", ratio);
  }
};
DSE_ALGORITHM("grpo", Grpo)
