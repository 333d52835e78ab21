// Reward model from preferences: -log sigmoid(score of chosen - score of rejected), the Bradley-Terry
// likelihood (Ouyang et al. 2022, equation 1).
#include <dsengine/algorithm.hpp>

struct RewardModel {
  static constexpr const char* summary = "reward model trained on chosen and rejected answers";
  static constexpr dse::Needs needs{.roles = dse::reward, .trained = dse::reward, .source = dse::pairs};
  bool token_form;

  explicit RewardModel(dse::Options& o)
      : token_form(o.string("form", "end",
                            "end: score at the last token; token: mean over the tokens from the first difference "
                            "to the longer end, as DeepSpeed-Chat",
                            "end|token") == "token") {}

  template <class Real>
  Real pair_loss(const dse::Pair<Real>& p) const {
    if (!token_form) return -log_sigmoid(p.chosen.last_value() - p.rejected.last_value());
    const auto longer = std::max(p.chosen.size(), p.rejected.size());
    const auto shorter = std::min(p.chosen.size(), p.rejected.size());
    int64_t first = 0;
    while (first < shorter && p.chosen.id(first) == p.rejected.id(first)) ++first;
    first = std::min(first, longer - 1);
    Real sum = 0;
    for (auto t = first; t < longer; ++t)  // past its end the shorter answer keeps its last score
      sum -= log_sigmoid(p.chosen.value(std::min(t, p.chosen.size() - 1)) -
                         p.rejected.value(std::min(t, p.rejected.size() - 1)));
    return sum / double(longer - first);
  }

  template <class Real>
  void pair_metrics(const dse::Pair<Real>& p, dse::Metrics& metric) const {
    const double margin = (p.chosen.last_value() - p.rejected.last_value()).value;
    metric("accuracy", margin > 0 ? 1 : margin == 0 ? 0.5 : 0);
    metric("margin", margin);
  }
};
DSE_ALGORITHM("reward", RewardModel)
