#include "rl/dealing.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "base/check.h"

namespace dsengine {

std::vector<RowUnit> row_units(const Experience& e, std::span<const int64_t> rows, const dse_needs& needs) {
  const bool groups = needs.source == DSE_SOURCE_ROLLOUT && needs.group_size > 1;
  const auto count = int64_t(rows.size());
  const auto prompt = [&](int64_t place) { return e.prompt[size_t(rows[size_t(place)])]; };
  std::vector<RowUnit> units;
  for (int64_t first = 0, last = 0; first < count; first = last) {
    last = first + rows_together(needs);
    while (groups && last < count && prompt(last) == prompt(first)) ++last;
    DSE_CHECK(last <= count, "{} rows: half a pair", count);
    int64_t tokens = 0;
    for (int64_t i = first; i < last; ++i) tokens += int64_t(e.rows[size_t(rows[size_t(i)])]->tokens.size());
    units.push_back({first, last, tokens});
  }
  return units;
}

Dealing deal(std::span<const RowUnit> units, int64_t ranks, int64_t micro_batch_size) {
  DSE_CHECK(ranks > 0 && micro_batch_size >= 0, "{} ranks, {} rows", ranks, micro_batch_size);
  std::vector<size_t> heaviest(units.size());
  std::iota(heaviest.begin(), heaviest.end(), size_t(0));
  std::ranges::stable_sort(heaviest, [&](size_t a, size_t b) { return units[a].tokens > units[b].tokens; });

  Dealing dealing{std::vector<std::vector<int64_t>>(size_t(ranks)), micro_batch_size, 0};
  std::vector<int64_t> tokens(size_t(ranks), 0);
  for (const auto u : heaviest) {
    size_t least = 0;
    const auto load = [&](size_t r) { return std::tuple(tokens[r], dealing.rows[r].size()); };
    for (size_t r = 1; r < size_t(ranks); ++r)
      if (load(r) < load(least)) least = r;
    tokens[least] += units[u].tokens;
    for (int64_t row = units[u].first; row < units[u].last; ++row) dealing.rows[least].push_back(row);
  }
  int64_t most = 0;
  for (auto& rows : dealing.rows) {
    std::ranges::sort(rows);
    most = std::max(most, int64_t(rows.size()));
  }
  if (micro_batch_size == 0) dealing.micro_batch_size = std::max<int64_t>(1, most);
  dealing.micro_batches = (most + dealing.micro_batch_size - 1) / dealing.micro_batch_size;
  return dealing;
}

std::vector<int64_t> Dealing::micro_batch(int64_t rank, int64_t index) const {
  const auto& own = rows[size_t(rank)];
  const auto count = int64_t(own.size());
  const int64_t first = std::min(count, index * micro_batch_size), last = std::min(count, first + micro_batch_size);
  return {own.begin() + first, own.begin() + last};
}

}  // namespace dsengine
