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
  read_placed(storage, span, [&](const std::string& place, const at::Tensor& rows) {
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
  const auto from = kept(fused, fused.trained_flat());
  ASSERT_EQ(from.size(), 4u);
  EXPECT_TRUE(from.contains("attn.kv@2"));
  write_placed(apart, apart.trained_flat(),
               [&](const std::string& place, const at::Tensor& rows) { rows.copy_(from.at(place)); });
  for (size_t p = 0; p < 3; ++p)
    EXPECT_TRUE(at::equal(fused.part(1, p), apart.part(std::array<size_t, 3>{1, 2, 0}[p], 0))) << p;
  EXPECT_TRUE(at::equal(fused.block(0), apart.block(3)));
}

// Rows that alternate are handed over dense, and what is written finds its way back; what is not trained stays.
TEST(Placement, InterleavedRowsAreReadAndWritten) {
  const ParamSpec gate{.tensor = "gate", .shape = {4, 3}, .role = ParamRole::gate};
  const ParamSpec up{.tensor = "up", .shape = {4, 3}, .role = ParamRole::up};
  ParamStorage plain("a", {{{q}}, {{gate, up}}}, Device::host(), at::kFloat);
  ParamStorage mixed("b", {{{q}}, {{gate, up}, 2}}, Device::host(), at::kFloat);
  plain.train({false, true}), mixed.train({false, true});
  plain.flat().copy_(at::arange(plain.flat().numel())), mixed.flat().fill_(-1);
  const auto from = kept(plain, plain.trained_flat());
  const auto fill = [&](const std::string& place, const at::Tensor& rows) { rows.copy_(from.at(place)); };
  for (const at::Tensor& span : {mixed.trained_flat(), mixed.grad()}) {
    write_placed(mixed, span, fill);
    const auto back = kept(mixed, span);
    ASSERT_EQ(back.size(), 2u);
    for (const auto& [place, rows] : back) EXPECT_TRUE(at::equal(rows, from.at(place))) << place;
  }
  EXPECT_FALSE(at::equal(mixed.block(1), plain.block(1)));
  EXPECT_TRUE(at::equal(mixed.part(1, 0).reshape({4, 3}), plain.part(1, 0)));
  EXPECT_TRUE(at::equal(mixed.grad_part(1, 1).reshape({4, 3}), plain.part(1, 1)));
  EXPECT_TRUE((mixed.block(0) == -1).all().item<bool>());
}

TEST(Placement, OnlyWhatIsTrainedIsKept) {
  ParamStorage storage("a", {{{norm}}, {{q, k, v}}}, Device::host(), at::kFloat);
  storage.train({true, false});
  const auto all = kept(storage, storage.grad());
  ASSERT_EQ(all.size(), 1u);
  EXPECT_EQ(all.begin()->first, "norm");
  EXPECT_EQ(all.begin()->second.data_ptr(), storage.grad_block(0).data_ptr());
}

}  // namespace
}  // namespace dsengine
