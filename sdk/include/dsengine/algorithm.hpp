// Algorithms: how rows of answers become a loss. Arithmetic on float32 columns; no tensors, devices or ranks.
//
//   struct Sft {
//     static constexpr dse::Needs needs{.roles = dse::actor, .source = dse::records};
//     explicit Sft(dse::Options&) {}
//     template <class Real> Real token_loss(const dse::Token<Real>& t) const { return -t.logp; }
//   };
//   DSE_ALGORITHM("sft", Sft)
//
// An algorithm has exactly one of
//   token_loss(const Token<Real>&)   the loss of one response token
//   row_loss  (const Row<Real>&)     of one answer
//   pair_loss (const Pair<Real>&)    of a chosen and a rejected answer
//   raw_loss  (const Rows<Real>&)    of the whole minibatch, normalised by itself
// and may have prepare(Batch&) (fills advantage, target and own columns before the first loss), metrics
// (token_metrics, row_metrics, pair_metrics: same argument and a Metrics&), and save/load of its state
// (std::string save() const; void load(std::string_view)).
#pragma once
#include <algorithm>
#include <span>
#include <string_view>
#include <utility>

#include "dual.hpp"
#include "plugin.hpp"

namespace [[gnu::visibility("hidden")]] dse {

// Roles, sources and normalisations, as abi.h explains them.
inline constexpr uint32_t actor = DSE_ACTOR, reference = DSE_REFERENCE, critic = DSE_CRITIC, reward = DSE_REWARD;
inline constexpr uint32_t rollout = DSE_SOURCE_ROLLOUT, records = DSE_SOURCE_RECORDS, pairs = DSE_SOURCE_PAIRS;
inline constexpr uint32_t per_token = DSE_NORM_TOKENS, per_row = DSE_NORM_ROWS,
                          row_token_mean = DSE_NORM_ROW_TOKEN_MEAN, constant = DSE_NORM_CONSTANT;

// What the algorithm works with. An instance may replace it: `dse::Needs needs` set in the constructor.
struct Needs {
  uint32_t roles;
  uint32_t trained = 0;  // 0: the actor and critic among the roles
  uint32_t source = rollout;
  uint32_t normalisation = per_token;  // rows (or pairs) for row and pair losses
  bool entropy = false;                // the loss reads t.entropy
  uint32_t own_columns = 0;            // float32 per-token columns filled by prepare, read as t.own[i]
  double normalisation_constant = 1;
  int64_t group_size = 1;     // answers per prompt, at least
  bool rollout_logp = false;  // it reads what the policy that answered gave its tokens
};

// One response token. logp, entropy and value carry derivatives; the rest was fixed before the update.
template <class Real>
struct Token {
  Real logp, entropy, value;
  double old_logp, old_value, ref_logp, advantage, target;
  int32_t id;
  std::array<double, 8> own;
  double rollout_logp = 0;  // where needs.rollout_logp asks for it
};

// One answer: its tokens' columns by index, and what belongs to the whole.
template <class Real>
struct Row {
  int64_t begin, end;  // in the batch's token columns
  double score, weight;
  int32_t finish;
  const dse_batch* batch;
  int64_t seed_begin;  // first input that carries a derivative in this pass

  int64_t size() const { return end - begin; }
  int32_t id(int64_t t) const { return batch->token[begin + t]; }
  bool masked(int64_t t) const { return batch->mask[begin + t] == 0; }
  Real logp(int64_t t) const { return read(batch->logp, t, 0); }
  Real value(int64_t t) const { return read(batch->value, t, 1); }
  double old_logp(int64_t t) const { return batch->old_logp[begin + t]; }
  double ref_logp(int64_t t) const { return batch->ref_logp[begin + t]; }
  double rollout_logp(int64_t t) const { return batch->rollout_logp[begin + t]; }
  double advantage(int64_t t) const { return batch->advantage[begin + t]; }
  // Sums over the answer's loss tokens.
  Real logp_sum() const {
    Real sum = 0;
    for (int64_t t = 0; t < size(); ++t)
      if (!masked(t)) sum += logp(t);
    return sum;
  }
  double ref_logp_sum() const { return sum_of(batch->ref_logp); }
  double old_logp_sum() const { return sum_of(batch->old_logp); }
  double rollout_logp_sum() const { return sum_of(batch->rollout_logp); }
  int64_t loss_tokens() const {
    return std::count_if(batch->mask + begin, batch->mask + end, [](float m) { return m != 0; });
  }
  Real last_value() const { return value(size() - 1); }

 private:
  double sum_of(const float* column) const {
    double sum = 0;
    for (int64_t t = begin; t < end; ++t) sum += batch->mask[t] != 0 ? column[t] : 0;
    return sum;
  }
  // Inputs are numbered 2 * token + (0: logp, 1: value); a pass seeds as many as Real has slopes.
  Real read(const float* column, int64_t t, int which) const {
    Real x(column[begin + t]);
    const int64_t slot = 2 * (begin + t) + which - seed_begin;
    if (slot >= 0 && slot < int64_t(x.slope.size())) x.slope[slot] = 1;
    return x;
  }
};

template <class Real>
struct Pair {
  Row<Real> chosen, rejected;
};

template <class Real>
using Rows = std::vector<Row<Real>>;

// Collects weighted means under names that are string literals.
class Metrics {
 public:
  void operator()(const char* name, double value, double weight = 1) {
    for (auto& entry : entries_)
      if (entry.name == name) {
        entry.sum += value * weight, entry.weight += weight;
        return;
      }
    entries_.push_back({name, value * weight, weight});
  }
  void flush(const dse_batch& batch) const {
    for (const auto& entry : entries_)
      if (entry.weight > 0) batch.metric(batch.context, entry.name, entry.sum / entry.weight, entry.weight);
  }

 private:
  struct Entry {
    const char* name;
    double sum, weight;
  };
  std::vector<Entry> entries_;
};

// The rows of prepare: old_*, ref_*, rollout_logp and score are filled; advantage, target and own are to be.
class Batch {
 public:
  struct RowView {
    std::span<const float> old_logp, ref_logp, old_value, rollout_logp, mask;
    std::span<const int32_t> token;
    std::span<float> advantage, target;
    double score, weight;
    int64_t prompt;
    int32_t finish;
    size_t size() const { return mask.size(); }
  };

  explicit Batch(const dse_batch& raw) : raw_(raw) {
    for (int64_t r = 0; r < raw.rows; ++r) {
      const auto at = raw.offsets[r];
      const auto n = size_t(raw.offsets[r + 1] - at);
      const auto in = [&](const float* p) { return std::span<const float>(p ? p + at : nullptr, p ? n : 0); };
      const auto out = [&](float* p) { return std::span<float>(p ? p + at : nullptr, p ? n : 0); };
      rows_.push_back({in(raw.old_logp),
                       in(raw.ref_logp),
                       in(raw.old_value),
                       in(raw.rollout_logp),
                       in(raw.mask),
                       {raw.token + at, n},
                       out(raw.advantage),
                       out(raw.target),
                       raw.score ? raw.score[r] : 0,
                       raw.row_weight[r],
                       raw.prompt[r],
                       raw.finish[r]});
    }
  }

  std::span<RowView> rows() { return rows_; }
  // Rows that answer the same prompt.
  std::vector<std::span<RowView>> groups() {
    std::vector<std::span<RowView>> result;
    for (size_t first = 0, last = 0; first < rows_.size(); first = last) {
      while (last < rows_.size() && rows_[last].prompt == rows_[first].prompt) ++last;
      result.push_back(rows().subspan(first, last - first));
    }
    return result;
  }
  std::span<float> own(uint32_t column) { return {raw_.own[column], size_t(raw_.tokens)}; }
  void metric(const char* name, double value, double weight = 1) { raw_.metric(raw_.context, name, value, weight); }
  void all_reduce_sum(std::span<double> values) {
    check(raw_.all_reduce_sum(raw_.context, values.data(), int64_t(values.size())));
  }

  // advantage = (advantage - mean) / sqrt(variance + 1e-8), over the loss tokens of all ranks, with the
  // population variance; without shift_mean, the mean is put back.
  void whiten_advantage(bool shift_mean = true) {
    const auto [mean, variance] = moments([&](int64_t t) { return double(raw_.advantage[t]); });
    const double scale = 1 / std::sqrt(variance + 1e-8);
    const double back = shift_mean ? 0 : mean;
    for (int64_t t = 0; t < raw_.tokens; ++t) raw_.advantage[t] = float((raw_.advantage[t] - mean) * scale + back);
  }
  // 1 - Var(target - old_value) / Var(target): 1 for a perfect critic, 0 for a constant one.
  double explained_variance() {
    const double total = moments([&](int64_t t) { return double(raw_.target[t]); }).second;
    const double rest = moments([&](int64_t t) { return double(raw_.target[t]) - raw_.old_value[t]; }).second;
    return total > 0 ? 1 - rest / total : 0;
  }

 private:
  // Mean and population variance of f(token) over loss tokens of all ranks, in two passes.
  template <class F>
  std::pair<double, double> moments(const F& f) {
    double sum[2] = {0, 0};
    for (int64_t t = 0; t < raw_.tokens; ++t)
      if (raw_.mask[t] != 0) sum[0] += f(t), sum[1] += 1;
    all_reduce_sum(sum);
    const double count = std::max(sum[1], 1.0), mean = sum[0] / count;
    double squares[1] = {0};
    for (int64_t t = 0; t < raw_.tokens; ++t)
      if (raw_.mask[t] != 0) squares[0] += (f(t) - mean) * (f(t) - mean);
    all_reduce_sum(squares);
    return {mean, squares[0] / count};
  }

  const dse_batch& raw_;
  std::vector<RowView> rows_;
};

}  // namespace dse

#include "detail/algorithm_item.hpp"

#define DSE_ALGORITHM(name, Type)                                      \
  DSE_ITEM_NOTE("algorithm", name, "1.0", dse::noted_summary<Type>()); \
  DSE_PLUGIN(name, "1.0", items.push_back(dse::algorithm_item<Type>(name)))
