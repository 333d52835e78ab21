// Compares a prompt's answers in the loss, where micro-batches may have cut them apart: `plugins verify` must say so.
#include <dsengine/algorithm.hpp>

struct WrongGroups {
  static constexpr const char* summary = "a baseline taken over a micro-batch";
  static constexpr dse::Needs needs{.roles = dse::actor | dse::reward, .group_size = 2};

  explicit WrongGroups(dse::Options&) {}

  template <class Real>
  Real row_loss(const dse::Row<Real>& row) const {
    const dse_batch& b = *row.batch;
    const auto self = std::lower_bound(b.offsets, b.offsets + b.rows, row.begin) - b.offsets;
    double mean = 0, count = 0;
    for (int64_t r = 0; r < b.rows; ++r)
      if (b.prompt[r] == b.prompt[self]) mean += b.score[r], count += 1;
    return row.logp_sum() * (mean / count - row.score);
  }
};
DSE_ALGORITHM("wrong_groups", WrongGroups)
