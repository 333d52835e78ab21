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
#include <cstring>
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
  int64_t group_size = 1;  // answers per prompt, at least
};

// One response token. logp, entropy and value carry derivatives; the rest was fixed before the update.
template <class Real>
struct Token {
  Real logp, entropy, value;
  double old_logp, old_value, ref_logp, advantage, target;
  int32_t id;
  std::array<double, 8> own;
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

// The rows of prepare: old_*, ref_* and score are filled; advantage, target and own are to be.
class Batch {
 public:
  struct RowView {
    std::span<const float> old_logp, ref_logp, old_value, mask;
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

namespace detail {

template <class T>
concept TokenLoss = requires(const T& a, const Token<Dual<3>>& t) {
  a.token_loss(t);
};
template <class T>
concept RowLoss = requires(const T& a, const Row<Dual<8>>& r) {
  a.row_loss(r);
};
template <class T>
concept PairLoss = requires(const T& a, const Pair<Dual<8>>& p) {
  a.pair_loss(p);
};
template <class T>
concept RawLoss = requires(const T& a, const Rows<Dual<8>>& r) {
  a.raw_loss(r);
};

template <class Real>
Token<Real> token_at(const dse_batch& b, int64_t t) {
  const auto at = [&](const float* column) { return column ? double(column[t]) : 0.0; };
  Token<Real> token{at(b.logp),     at(b.entropy),   at(b.value),  at(b.old_logp), at(b.old_value),
                    at(b.ref_logp), at(b.advantage), at(b.target), b.token[t],     {}};
  for (uint32_t i = 0; i < b.own_column_count && i < token.own.size(); ++i) token.own[i] = at(b.own[i]);
  return token;
}

template <class Real>
Row<Real> row_at(const dse_batch& b, int64_t r, int64_t seed_begin) {
  return {b.offsets[r], b.offsets[r + 1], b.score ? b.score[r] : 0.0, b.row_weight[r], b.finish[r], &b, seed_begin};
}

template <class T>
void token_losses(const T& a, const dse_batch& b, dse_gradients& g) {
  parallel_for(0, b.tokens, 1024, [&](int64_t first, int64_t last) {
    for (int64_t t = first; t < last; ++t) {
      if (b.mask[t] == 0) continue;
      auto token = token_at<Dual<3>>(b, t);
      token.logp.slope[0] = token.entropy.slope[1] = token.value.slope[2] = 1;
      const Dual<3> loss = a.token_loss(token);
      g.loss[t] = loss.value;
      if (g.d_logp) g.d_logp[t] = float(loss.slope[0]);
      if (g.d_entropy) g.d_entropy[t] = float(loss.slope[1]);
      if (g.d_value) g.d_value[t] = float(loss.slope[2]);
    }
  });
}

// The loss of one unit that owns tokens [begin, end), eight derivatives a pass.
template <class Loss>
void unit_loss(const Loss& loss, int64_t begin, int64_t end, double* value, dse_gradients& g) {
  constexpr int width = 8;
  for (int64_t seed = 2 * begin; seed < 2 * end; seed += width) {
    const Dual<width> result = loss(seed);
    *value = result.value;
    for (int i = 0; i < width && seed + i < 2 * end; ++i) {
      float* column = (seed + i) % 2 ? g.d_value : g.d_logp;
      if (column) column[(seed + i) / 2] = float(result.slope[i]);
    }
  }
}

template <class T>
void losses(const T& a, const dse_batch& b, dse_gradients& g) {
  using D = Dual<8>;
  if constexpr (TokenLoss<T>) {
    token_losses(a, b, g);
  } else if constexpr (RowLoss<T>) {
    parallel_for(0, b.rows, 1, [&](int64_t first, int64_t last) {
      for (int64_t r = first; r < last; ++r)
        unit_loss([&](int64_t seed) { return a.row_loss(row_at<D>(b, r, seed)); }, b.offsets[r], b.offsets[r + 1],
                  &g.loss[r], g);
    });
  } else if constexpr (PairLoss<T>) {
    parallel_for(0, b.rows / 2, 1, [&](int64_t first, int64_t last) {
      for (int64_t p = first; p < last; ++p)
        unit_loss(
            [&](int64_t s) {
              return a.pair_loss(Pair<D>{row_at<D>(b, 2 * p, s), row_at<D>(b, 2 * p + 1, s)});
            },
            b.offsets[2 * p], b.offsets[2 * p + 2], &g.loss[p], g);
    });
  } else {
    static_assert(RawLoss<T>, "an algorithm needs token_loss, row_loss, pair_loss or raw_loss");
    unit_loss(
        [&](int64_t seed) {
          Rows<D> rows;
          for (int64_t r = 0; r < b.rows; ++r) rows.push_back(row_at<D>(b, r, seed));
          return a.raw_loss(rows);
        },
        0, b.tokens, g.loss, g);
  }
}

template <class T>
void metrics(const T& a, const dse_batch& b) {
  using D = Dual<0>;
  Metrics m;
  if constexpr (requires(const Token<D>& t) { a.token_metrics(t, m); })
    for (int64_t t = 0; t < b.tokens; ++t)
      if (b.mask[t] != 0) a.token_metrics(token_at<D>(b, t), m);
  if constexpr (requires(const Row<D>& r) { a.row_metrics(r, m); })
    for (int64_t r = 0; r < b.rows; ++r) a.row_metrics(row_at<D>(b, r, 0), m);
  if constexpr (requires(const Pair<D>& p) { a.pair_metrics(p, m); })
    for (int64_t r = 0; r + 1 < b.rows; r += 2) a.pair_metrics(Pair<D>{row_at<D>(b, r, 0), row_at<D>(b, r + 1, 0)}, m);
  m.flush(b);
}

template <class T>
dse_needs needs_of(const T& a) {
  const Needs n = a.needs;
  if (n.own_columns > std::tuple_size_v<decltype(Token<double>::own)>)
    throw Failure("own_columns: a token shows " + std::to_string(std::tuple_size_v<decltype(Token<double>::own)>));
  const bool by_token = TokenLoss<T>;
  const uint32_t trained = n.trained ? n.trained : n.roles & (actor | critic);
  uint32_t columns = 0;
  if (n.roles & actor) columns |= DSE_COLUMN_LOGP | (n.entropy ? DSE_COLUMN_ENTROPY : 0);
  if (trained & (critic | reward)) columns |= DSE_COLUMN_VALUE;
  if (n.roles & reference) columns |= DSE_COLUMN_REF_LOGP;
  if (n.source == rollout) {
    if (n.roles & actor) columns |= DSE_COLUMN_OLD_LOGP;
    if (n.roles & critic) columns |= DSE_COLUMN_OLD_VALUE;
    if (n.roles & reward) columns |= DSE_COLUMN_SCORE;
  }
  const int form = by_token ? DSE_FORM_TOKEN : RowLoss<T> ? DSE_FORM_ROW : PairLoss<T> ? DSE_FORM_PAIR : DSE_FORM_RAW;
  return {sizeof(dse_needs), n.roles,        trained,
          n.source,          uint32_t(form), by_token || n.normalisation == constant ? n.normalisation : per_row,
          columns,           n.own_columns,  n.normalisation_constant,
          n.group_size};
}

}  // namespace detail

template <class T>
Item algorithm_item(const char* name) {
  static const dse_algorithm table{sizeof(dse_algorithm),
                                   0,
                                   create<T>,
                                   destroy<T>,
                                   [](const void* self, dse_needs* out) {
                                     return guard([&] { *out = detail::needs_of(*static_cast<const T*>(self)); });
                                   },
                                   [](void* self, const dse_batch* batch) {
                                     return guard([&] {
                                       if constexpr (requires(T & a, Batch & b) { a.prepare(b); }) {
                                         Batch rows(*batch);
                                         static_cast<T*>(self)->prepare(rows);
                                       }
                                     });
                                   },
                                   [](void* self, const dse_batch* batch, dse_gradients* gradients) {
                                     return guard([&] {
                                       detail::losses(*static_cast<const T*>(self), *batch, *gradients);
                                       detail::metrics(*static_cast<const T*>(self), *batch);
                                     });
                                   },
                                   [](const void* self, void* buffer, int64_t* size) {
                                     return guard([&] {
                                       *size = 0;
                                       if constexpr (requires(const T& a) { std::string(a.save()); }) {
                                         const std::string state = static_cast<const T*>(self)->save();
                                         *size = int64_t(state.size());
                                         if (buffer) std::memcpy(buffer, state.data(), state.size());
                                       }
                                     });
                                   },
                                   [](void* self, const void* buffer, int64_t size) {
                                     return guard([&] {
                                       if constexpr (requires(T & a) { a.load(std::string_view{}); })
                                         static_cast<T*>(self)->load({static_cast<const char*>(buffer), size_t(size)});
                                     });
                                   }};
  return {DSE_ALGORITHM, name, summary_of<T>(), &table, recorded_options<T>()};
}

}  // namespace dse

#define DSE_ALGORITHM(name, Type) DSE_PLUGIN(name, "1.0", items.push_back(dse::algorithm_item<Type>(name)))
