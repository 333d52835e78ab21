// A raw loss that no part of a minibatch has alone: each answer's log-probability against that of all the others.
#include <dsengine/algorithm.hpp>

struct RawContrast {
  static constexpr const char* summary = "-log softmax of the answers' weighted log-probabilities over the minibatch";
  static constexpr dse::Needs needs{.roles = dse::actor, .source = dse::records};

  explicit RawContrast(dse::Options&) {}

  template <class Real>
  Real raw_loss(const dse::Rows<Real>& rows) const {
    Real all = 0, loss = 0;
    for (const auto& row : rows) all += exp(mean(row));
    for (const auto& row : rows) loss += (log(all) - mean(row)) / double(rows.size()) - 0.1 * mean(row);
    return loss;
  }
  template <class Real>
  void row_metrics(const dse::Row<Real>& row, dse::Metrics& metric) const {
    metric("mean_logp", mean(row).value);
  }

 private:
  template <class Real>
  static Real mean(const dse::Row<Real>& row) {
    return row.logp_sum() / double(row.loss_tokens());
  }
};
DSE_ALGORITHM("raw_contrast", RawContrast)
