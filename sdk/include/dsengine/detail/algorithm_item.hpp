// How an algorithm of <dsengine/algorithm.hpp>, which includes this, becomes a table of the ABI: its losses with their
// derivatives, its metrics, its state. No author needs to read it.
//
//   dse::Item item = dse::algorithm_item<Ppo>("ppo");
#pragma once
#include <cstring>

#include "../algorithm.hpp"

namespace [[gnu::visibility("hidden")]] dse {

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
  Token<Real> token{at(b.logp),        at(b.entropy),   at(b.value),  at(b.old_logp), at(b.old_value),
                    at(b.ref_logp),    at(b.advantage), at(b.target), b.token[t],     {},
                    at(b.rollout_logp)};
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
  if (n.rollout_logp) columns |= DSE_COLUMN_ROLLOUT_LOGP;
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
