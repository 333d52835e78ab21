// A raw loss of a rollout's answers that corrects itself for the policy that answered: each answer's ratio is cut at 2.
// RAW_UNCORRECTED does not read what the rollout told.
#include <dsengine/algorithm.hpp>

struct RawCorrected {
  static constexpr const char* summary = "REINFORCE over the minibatch, its answers weighed by a truncated ratio";
#ifdef RAW_UNCORRECTED
  static constexpr dse::Needs needs{.roles = dse::actor};
#else
  static constexpr dse::Needs needs{.roles = dse::actor, .rollout_logp = true};
#endif

  explicit RawCorrected(dse::Options&) {}

  // The same column as in the loss.
  void prepare(dse::Batch& batch) const {
    for (auto& row : batch.rows())
      for (size_t t = 0; t < row.size(); ++t)
        row.advantage[t] = needs.rollout_logp ? row.rollout_logp[t] : row.old_logp[t];
  }

  template <class Real>
  Real raw_loss(const dse::Rows<Real>& rows) const {
    Real loss = 0;
    for (const auto& row : rows) loss -= factor(row) * row.logp_sum() / double(rows.size());
    return loss;
  }

 private:
  template <class Real>
  static double factor(const dse::Row<Real>& row) {
    if (!needs.rollout_logp) return 1;
    for (int64_t t = 0; t < row.size(); ++t)
      if (row.rollout_logp(t) != row.advantage(t)) throw dse::Failure("another rollout_logp than in prepare");
    return std::min(2.0, std::exp(row.old_logp_sum() - row.rollout_logp_sum()));
  }
};
#ifdef RAW_UNCORRECTED
DSE_ALGORITHM("raw_uncorrected", RawCorrected)
#else
DSE_ALGORITHM("raw_corrected", RawCorrected)
#endif
