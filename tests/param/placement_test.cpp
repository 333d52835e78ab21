// What one layout keeps, another reads: by a parameter's place in its checkpoint.
#include "param/placement.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <map>

namespace dsengine {
namespace {

const ParamSpec q{.tensor = "attn.q", .shape = {3, 4}, .role = ParamRole::q};
const ParamSpec k{.tensor = "attn.kv", .shape = {2, 4}, .first_row = 0, .role = ParamRole::k};
const ParamSpec v{.tensor = "attn.kv", .shape = {2, 4}, .first_row = 2, .role = ParamRole::v};
const ParamSpec norm{.tensor = "norm", .shape = {5}, .role = ParamRole::norm};

std::map<std::string, at::Tensor> kept(const ParamStorage& storage, const at::Tensor& span) {
  std::map<std::string, at::Tensor> result;
  for_each_placed(storage, span, [&](const std::string& place, const at::Tensor& rows) {
    EXPECT_TRUE(rows.is_contiguous()) << place;
    EXPECT_TRUE(result.emplace(place, rows).second) << place << " twice";
  });
  return result;
}

TEST(Placement, AnotherLayoutReadsWhatOneKeeps) {
  ParamStorage fused("a", {{{norm}}, {{q, k, v}}}, Device::host(), at::kFloat);
  ParamStorage apart("b", {{{v}}, {{q}}, {{k}}, {{norm}}}, Device::host(), at::kFloat);
  fused.train(), apart.train();
  at::Tensor(fused.flat()).copy_(at::arange(fused.flat().numel()));
  const auto from = kept(fused, fused.trained_flat()), to = kept(apart, apart.trained_flat());
  ASSERT_EQ(from.size(), 4u);
  EXPECT_TRUE(from.contains("attn.kv@2"));
  for (const auto& [place, rows] : to) at::Tensor(rows).copy_(from.at(place));
  for (size_t p = 0; p < 3; ++p)
    EXPECT_TRUE(at::equal(fused.part(1, p), apart.part(std::array<size_t, 3>{1, 2, 0}[p], 0))) << p;
  EXPECT_TRUE(at::equal(fused.block(0), apart.block(3)));
}

TEST(Placement, OnlyWhatIsTrainedIsKept) {
  ParamStorage storage("a", {{{norm}}, {{q, k, v}}}, Device::host(), at::kFloat);
  storage.train({true, false});
  const auto all = kept(storage, storage.grad());
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all.begin()->first, "norm");
  EXPECT_EQ(all.begin()->second.data_ptr(), storage.grad_block(0).data_ptr());
}

TEST(Placement, SplitsFollowTheRole) {
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
