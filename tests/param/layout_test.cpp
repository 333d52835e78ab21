// Where parameters lie, by positions worked by hand; what a rank owns of them.
#include "param/layout.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/check.h"

namespace dsengine {
namespace {

ParamSpec spec(ParamRole role, std::vector<int64_t> shape) {
  return {.tensor = name_of(role), .shape = std::move(shape), .role = role};
}

at::Tensor counted(const ParamLayout& layout) { return at::arange(layout.numel(), at::kFloat); }

at::Tensor numbers(std::vector<float> values, at::IntArrayRef shape) { return at::tensor(values).view(shape); }

TEST(Layout, PartsAreAdjacentRows) {
  const ParamLayout layout("a", {{{spec(ParamRole::q, {2, 2}), spec(ParamRole::k, {1, 2})}}}, 4);
  EXPECT_TRUE(at::equal(layout.part_of(counted(layout), 0, 0), numbers({0, 1, 2, 3}, {2, 2})));
  EXPECT_TRUE(at::equal(layout.part_of(counted(layout), 0, 1), numbers({4, 5}, {1, 2})));
}

// Rows of the block: gate 0, gate 1, up 0, up 1, gate 2, gate 3, up 2, up 3, of two elements each.
TEST(Layout, PartsAlternateInGroupsOfRows) {
  const ParamLayout layout("a",
                           {{{spec(ParamRole::norm, {3})}},
                            {{spec(ParamRole::gate, {4, 2}), spec(ParamRole::up, {4, 2})}, 2},
                            {{spec(ParamRole::gate, {4}), spec(ParamRole::up, {4})}, 2}},
                           4);
  const at::Tensor flat = counted(layout);
  EXPECT_EQ(layout.offset_of(1), 0);  // matrices first
  EXPECT_TRUE(at::equal(layout.part_of(flat, 1, 0), numbers({0, 1, 2, 3, 8, 9, 10, 11}, {2, 2, 2})));
  EXPECT_TRUE(at::equal(layout.part_of(flat, 1, 1), numbers({4, 5, 6, 7, 12, 13, 14, 15}, {2, 2, 2})));
  EXPECT_TRUE(
      at::equal(layout.block_of(flat, 1), numbers({0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}, {8, 2})));
  // The biases lie behind the norm's 3 elements and the padding to 32.
  EXPECT_EQ(layout.offset_of(2), 64);
  EXPECT_TRUE(at::equal(layout.part_of(flat, 2, 1), numbers({66, 67, 70, 71}, {2, 2})));
  // A buffer that begins at the biases.
  EXPECT_TRUE(at::equal(layout.part_of(flat.narrow(0, 64, 8), 2, 0, 64), numbers({64, 65, 68, 69}, {2, 2})));
  EXPECT_TRUE(layout.part_of(flat, 1, 1).is_alias_of(flat));
}

TEST(Layout, PartsThatCannotAlternateAreRefused) {
  const auto message = [](std::vector<int64_t> rows, int64_t interleave) -> std::string {
    try {
      const ParamLayout layout(
          "layers.3", {{{spec(ParamRole::gate, {rows[0], 2}), spec(ParamRole::up, {rows[1], 2})}, interleave}}, 4);
    } catch (const InternalError& e) {
      return e.what();
    }
    return "";
  };
  EXPECT_EQ(message({6, 6}, 3), "");
  EXPECT_NE(message({6, 3}, 3).find("unit layers.3"), std::string::npos);  // other rows
  EXPECT_NE(message({6, 6}, 4).find("unit layers.3"), std::string::npos);  // no multiple
  EXPECT_NE(message({6, 6}, -1).find("unit layers.3"), std::string::npos);
}

// The first element of each row that `span` has of a part, divided by the row's length: which row of the part it is.
std::vector<int64_t> rows_in(const ParamBlock& block, size_t part, const RowSpan& span) {
  const ParamLayout layout("a", {block}, 4);
  const at::Tensor flat = at::full({layout.numel()}, -1, at::kLong);
  const at::Tensor rows = layout.part_of(flat, 0, part);
  rows.copy_(at::arange(rows.numel()).view(rows.sizes()).div(block.row_numel(), "floor"));
  std::vector<int64_t> result;
  for (int64_t r = span.first; r < span.first + span.rows; ++r)
    if (const auto row = layout.block_of(flat, 0)[r][0].item<int64_t>(); row >= 0) result.push_back(row);
  return result;
}

void expect_span(const RowSpan& span, int64_t first, int64_t rows) {
  EXPECT_EQ(span.first, first);
  EXPECT_EQ(span.rows, rows);
}

TEST(RowsOfRank, AreOneSpanOfEveryPart) {
  const auto block = [](int64_t interleave) {
    return ParamBlock{{spec(ParamRole::q, {8, 2}), spec(ParamRole::k, {8, 2}), spec(ParamRole::v, {8, 2})}, interleave};
  };
  using Rows = std::vector<int64_t>;
  const RowSpan half = rows_of_rank(block(4), 1, 2);  // g = rows / size: q 4..7, k 4..7, v 4..7
  expect_span(half, 12, 12);
  const RowSpan quarter = rows_of_rank(block(2), 3, 4);
  expect_span(quarter, 18, 6);
  const RowSpan finer = rows_of_rank(block(2), 0, 2);  // g divides a share: q 0 1, k 0 1, v 0 1, q 2 3, k 2 3, v 2 3
  expect_span(finer, 0, 12);
  for (size_t part = 0; part < 3; ++part) {
    EXPECT_EQ(rows_in(block(4), part, half), (Rows{4, 5, 6, 7})) << part;
    EXPECT_EQ(rows_in(block(2), part, quarter), (Rows{6, 7})) << part;
    EXPECT_EQ(rows_in(block(2), part, finer), (Rows{0, 1, 2, 3})) << part;
  }
  const RowSpan single = rows_of_rank({{spec(ParamRole::embedding, {10, 2})}}, 2, 5);
  expect_span(single, 4, 2);

  EXPECT_THROW(rows_of_rank(block(0), 0, 2), InternalError);  // its shares are apart
  EXPECT_THROW(rows_of_rank(block(8), 0, 2), InternalError);  // a group of q holds two ranks' rows
  EXPECT_THROW(rows_of_rank(block(1), 0, 3), InternalError);  // 8 rows of 3 ranks
  EXPECT_THROW(rows_of_rank(block(4), 2, 2), InternalError);
  EXPECT_THROW(rows_of_rank({{spec(ParamRole::down, {8, 2})}}, 0, 2), InternalError);  // by columns
}

TEST(SplitAxis, FollowsTheRole) {
  const auto axis = [](ParamRole role, std::vector<int64_t> shape) {
    return split_axis({.tensor = "t", .shape = std::move(shape), .role = role});
  };
  EXPECT_EQ(axis(ParamRole::gate, {8, 4}), SplitAxis::rows);
  EXPECT_EQ(axis(ParamRole::gate, {8}), SplitAxis::rows);
  EXPECT_EQ(axis(ParamRole::down, {4, 8}), SplitAxis::columns);
  EXPECT_EQ(axis(ParamRole::down, {4}), SplitAxis::none);  // added once, after the ranks' sum
  EXPECT_EQ(axis(ParamRole::embedding, {97, 4}), SplitAxis::rows);
  for (const auto role : {ParamRole::norm, ParamRole::positions, ParamRole::value_head, ParamRole::linear})
    EXPECT_EQ(axis(role, {5, 4}), SplitAxis::none);
}

}  // namespace
}  // namespace dsengine
