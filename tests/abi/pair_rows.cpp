// A sound loss of single rows that reads the other answer of its pair: a batch that was cut between the two is refused.
#include <dsengine/algorithm.hpp>

struct PairRows {
  static constexpr const char* summary = "each answer's log-probability, weighed by the other's reference";
  static constexpr dse::Needs needs{.roles = dse::actor | dse::reference, .source = dse::pairs};

  explicit PairRows(dse::Options&) {}

  template <class Real>
  Real row_loss(const dse::Row<Real>& row) const {
    const dse_batch& b = *row.batch;
    const auto self = std::lower_bound(b.offsets, b.offsets + b.rows, row.begin) - b.offsets, other = self ^ 1;
    if (other >= b.rows || b.prompt[self] != b.prompt[other]) throw dse::Failure("half a pair");
    double reference = 0;
    for (int64_t t = b.offsets[other]; t < b.offsets[other + 1]; ++t) reference += b.ref_logp[t];
    return row.logp_sum() * (self < other ? -1.0 : 1.0) / (1 - reference);
  }
};
DSE_ALGORITHM("pair_rows", PairRows)
