// Direct preference optimisation (Rafailov et al. 2023, equation 7): a policy trained on pairs, without reward model or
// rollouts. With label_smoothing it is conservative DPO (Mitchell 2023); loss_type = "ipo" is identity preference
// optimisation (Azar et al. 2023, equation 17) on log-ratios averaged over an answer's tokens, as TRL has it.
#include <dsengine/algorithm.hpp>

struct Dpo {
  static constexpr const char* summary = "direct preference optimisation; also IPO and cDPO";
  static constexpr dse::Needs needs{.roles = dse::actor | dse::reference, .source = dse::pairs};
  double beta, label_smoothing;
  bool ipo;

  explicit Dpo(dse::Options& o)
      : beta(o.real("beta", 0.1, "how strongly the policy is held to the reference", {1e-6, dse::infinity})),
        label_smoothing(o.real("label_smoothing", 0, "cDPO: share of pairs taken to be flipped", {0, 0.499})),
        ipo(o.string("loss_type", "sigmoid", "sigmoid: DPO; ipo: squared distance of the margin to 1 / (2 beta)",
                     "sigmoid|ipo") == "ipo") {}

  // log p / reference p of an answer.
  template <class Real>
  Real log_ratio(const dse::Row<Real>& row) const {
    const Real sum = row.logp_sum() - row.ref_logp_sum();
    return ipo ? sum / double(std::max<int64_t>(1, row.loss_tokens())) : sum;
  }

  template <class Real>
  Real pair_loss(const dse::Pair<Real>& p) const {
    const Real margin = log_ratio(p.chosen) - log_ratio(p.rejected);
    if (ipo) return square(margin - 1 / (2 * beta));
    return -(1 - label_smoothing) * log_sigmoid(beta * margin) - label_smoothing * log_sigmoid(-beta * margin);
  }

  template <class Real>
  void pair_metrics(const dse::Pair<Real>& p, dse::Metrics& metric) const {
    const double chosen = beta * log_ratio(p.chosen).value, rejected = beta * log_ratio(p.rejected).value;
    metric("accuracy", chosen > rejected ? 1 : chosen == rejected ? 0.5 : 0);
    metric("margin", chosen - rejected);
    metric("reward_chosen", chosen), metric("reward_rejected", rejected);
  }
};
DSE_ALGORITHM("dpo", Dpo)
