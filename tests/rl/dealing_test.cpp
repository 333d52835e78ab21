// Which rank gets which rows, worked by hand.
#include "rl/dealing.h"

#include <gtest/gtest.h>

#include "base/check.h"
#include "rl/agreement.h"

namespace dsengine {
namespace {

using Rows = std::vector<std::vector<int64_t>>;

// Units of one row each.
std::vector<RowUnit> singles(const std::vector<int64_t>& tokens) {
  std::vector<RowUnit> units;
  for (size_t i = 0; i < tokens.size(); ++i) units.push_back({int64_t(i), int64_t(i) + 1, tokens[i]});
  return units;
}

TEST(Deal, OneRankKeepsTheOrder) {
  const auto dealing = deal(singles({3, 9, 1, 4, 4}), 1, 2);
  EXPECT_EQ(dealing.rows, (Rows{{0, 1, 2, 3, 4}}));
  EXPECT_EQ(dealing.micro_batches, 3);
  EXPECT_EQ(dealing.micro_batch(0, 0), (std::vector<int64_t>{0, 1}));
  EXPECT_EQ(dealing.micro_batch(0, 2), (std::vector<int64_t>{4}));
}

// 9 to rank 0; 4, 4 to rank 1; then 3 to rank 1 (8 against 9), 1 to rank 0 (9 against 11).
TEST(Deal, BalancesTokensAndKeepsTheOrderWithinARank) {
  const auto dealing = deal(singles({3, 9, 1, 4, 4}), 2, 2);
  EXPECT_EQ(dealing.rows, (Rows{{1, 2}, {0, 3, 4}}));
  EXPECT_EQ(dealing.micro_batches, 2);
  EXPECT_EQ(dealing.micro_batch(0, 1), std::vector<int64_t>{}) << "empty, and run all the same";
  EXPECT_EQ(dealing.micro_batch(1, 1), (std::vector<int64_t>{4}));
}

TEST(Deal, EqualRowsGoRound) {
  EXPECT_EQ(deal(singles({5, 5, 5, 5, 5, 5, 5}), 3, 8).rows, (Rows{{0, 3, 6}, {1, 4}, {2, 5}}));
  EXPECT_EQ(deal(singles({0, 0, 0}), 3, 8).rows, (Rows{{0}, {1}, {2}})) << "rows count where tokens do not";
}

TEST(Deal, RanksMayBeEmpty) {
  const auto dealing = deal(singles({2, 7}), 4, 1);
  EXPECT_EQ(dealing.rows, (Rows{{1}, {0}, {}, {}}));
  EXPECT_EQ(dealing.micro_batches, 1);
  EXPECT_EQ(dealing.micro_batch(3, 0), std::vector<int64_t>{});
  const auto nothing = deal({}, 2, 4);
  EXPECT_EQ(nothing.rows, (Rows{{}, {}}));
  EXPECT_EQ(nothing.micro_batches, 0);
}

// A group of five rows and 50 tokens against three of two rows and 8: it is not cut.
TEST(Deal, GroupsStayWhole) {
  const std::vector<RowUnit> groups{{0, 2, 8}, {2, 7, 50}, {7, 9, 8}, {9, 11, 8}};
  const auto dealing = deal(groups, 2, 2);
  EXPECT_EQ(dealing.rows, (Rows{{2, 3, 4, 5, 6}, {0, 1, 7, 8, 9, 10}}));
  EXPECT_EQ(dealing.micro_batches, 3);
  EXPECT_EQ(deal(groups, 2, 0).micro_batches, 1);
  EXPECT_EQ(deal(groups, 2, 0).micro_batch(1, 0).size(), 6u);
  EXPECT_EQ(deal({}, 2, 0).micro_batches, 0);
}

dse_needs needs_of(uint32_t source, uint32_t group_size) {
  dse_needs needs{};
  needs.source = source, needs.group_size = group_size;
  return needs;
}

TEST(RowUnits, ArePairsGroupsOrRows) {
  Experience e;
  const std::vector<int64_t> prompts{4, 4, 4, 7, 9, 9};
  for (size_t r = 0; r < prompts.size(); ++r) {
    ExperienceRow row{std::vector<int32_t>(r + 2, 5), 1, {}};
    e.add_row(std::move(row), prompts[r], Finish::eos, 1, std::vector<uint8_t>(r + 1, 1));
  }
  const auto units = [&](const std::vector<int64_t>& rows, uint32_t source, uint32_t group_size) {
    std::vector<std::array<int64_t, 3>> result;
    for (const auto& u : row_units(e, rows, needs_of(source, group_size)))
      result.push_back({u.first, u.last, u.tokens});
    return result;
  };
  using Units = std::vector<std::array<int64_t, 3>>;
  EXPECT_EQ(units({0, 1, 2, 3, 4, 5}, DSE_SOURCE_ROLLOUT, 2), (Units{{0, 3, 9}, {3, 4, 5}, {4, 6, 13}}));
  EXPECT_EQ(units({0, 1, 2, 3}, DSE_SOURCE_PAIRS, 1), (Units{{0, 2, 5}, {2, 4, 9}}));
  EXPECT_EQ(units({4, 1}, DSE_SOURCE_ROLLOUT, 1), (Units{{0, 1, 6}, {1, 2, 3}})) << "by places, in the order given";
  EXPECT_THROW(units({0, 1, 2}, DSE_SOURCE_PAIRS, 1), InternalError);
}

TEST(MetricParts, GoThroughBytes) {
  MetricParts parts;
  parts.add("loss", 0.1, 3), parts.add("", -0.0), parts.add("reward/a b", std::numeric_limits<double>::infinity(), 2);
  EXPECT_EQ(MetricParts::of_bytes(parts.bytes()).bytes(), parts.bytes());
  EXPECT_EQ(MetricParts::of_bytes("").bytes(), "");
  EXPECT_THROW(MetricParts::of_bytes(parts.bytes().substr(0, 30)), InternalError);
  MetricMeans means;
  MetricParts more;
  more.add("loss", 0.5, 1);
  parts.add_to(means), more.add_to(means);
  EXPECT_DOUBLE_EQ(means.mean("loss"), 0.2);
}

}  // namespace
}  // namespace dsengine
