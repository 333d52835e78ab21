// Where ranks' parts are cut, by hand; and moments in parts beside the same moments whole: their bytes, what a
// checkpoint has of them, and what comes back.
#include "param/shards.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "comm/local.h"
#include "comm/threads.h"
#include "param/adamw.h"

namespace dsengine {
namespace {

using testing::ElementsAre;

ParamBlock matrix(const std::string& name, int64_t rows, int64_t width) { return {{{name, {rows, width}}}}; }
// Lies behind other matrices, wherever it is listed.
ParamBlock table(const std::string& name, int64_t rows, int64_t width) {
  ParamBlock block = matrix(name, rows, width);
  block.parts[0].role = ParamRole::embedding;
  return block;
}
ParamBlock vector(const std::string& name, int64_t numel) { return {{{name, {numel}}}}; }

std::vector<int64_t> cuts(const ParamLayout& layout, int64_t size) {
  return shard_cuts(layout, {0, layout.numel()}, size);
}

TEST(Shards, AreEvenUpToARow) {
  const ParamLayout rows("rows", {matrix("m", 8, 32)}, 4);
  EXPECT_THAT(cuts(rows, 1), ElementsAre(0, 256));
  EXPECT_THAT(cuts(rows, 2), ElementsAre(0, 128, 256));
  EXPECT_THAT(cuts(rows, 3), ElementsAre(0, 96, 160, 256)) << "85 is nearest to row 3, 170 to row 5";
  EXPECT_THAT(cuts(rows, 16), testing::SizeIs(17)) << "more ranks than rows: some own nothing";
  const ParamLayout mixed("mixed", {matrix("m", 2, 32), vector("v", 64)}, 4);
  EXPECT_THAT(cuts(mixed, 4), ElementsAre(0, 32, 64, 96, 128)) << "vectors are cut anywhere";
}

TEST(Shards, CutNoRow) {
  const ParamLayout layout("odd", {matrix("a", 5, 7), vector("b", 11), matrix("c", 3, 300)}, 4);
  for (int64_t size = 1; size <= 9; ++size) {
    const auto all = cuts(layout, size);
    ASSERT_EQ(int64_t(all.size()), size + 1);
    EXPECT_TRUE(std::ranges::is_sorted(all));
    EXPECT_EQ(all.front(), 0);
    EXPECT_EQ(all.back(), layout.numel());
    for (const int64_t cut : all)
      for (size_t b = 0; b < layout.blocks().size(); ++b) {
        const int64_t at = cut - layout.offset_of(b);
        if (!layout.blocks()[b].decay() || at < 0 || at >= layout.numel_of(b)) continue;
        EXPECT_EQ(at % layout.blocks()[b].row_numel(), 0) << size;
      }
  }
}

using Kept = std::map<std::string, at::Tensor>;

struct Trained {
  explicit Trained(MomentFormat format, const Sharding& sharding) {
    at::Tensor flat = unit.flat();
    flat.copy_(at::randn(flat.sizes(), at::detail::createCPUGenerator(7)));
    unit.train({true, true, true, true, true}, {.sharding = sharding});
    optimizer.emplace(kernels, std::vector<ParamStorage*>{&unit}, AdamWSettings{.moments = format, .seed = 3});
  }
  void step(Communicator& ranks, uint64_t seed) {
    const at::Tensor all = at::randn({unit.trained_numel()}, at::detail::createCPUGenerator(seed));
    at::Tensor(unit.grad()).copy_(all.narrow(0, unit.grad_cut() ? unit.own_begin() : 0, unit.grad().numel()));
    optimizer->step(1e-2, ranks);
  }
  Kept kept(Communicator& ranks) const {
    Kept all;
    optimizer->read_moments(0, ranks, [&](const auto& name, const at::Tensor& rows) { all[name] = rows.clone(); });
    return all;
  }

  const Kernels kernels;
  ParamStorage unit{"unit",
                    {table("t", 30, 300), matrix("a", 5, 300), vector("b", 11), matrix("c", 9, 40), vector("d", 70)},
                    Device::host(),
                    at::kFloat};
  std::optional<AdamW> optimizer;
};

class SharedMoments : public testing::TestWithParam<std::tuple<MomentFormat, int64_t>> {};
INSTANTIATE_TEST_SUITE_P(All, SharedMoments,
                         testing::Combine(testing::Values(MomentFormat::fp32, MomentFormat::bf16, MomentFormat::bits8),
                                          testing::Values(1, 2)));

void expect_same(const Kept& a, const Kept& b) {
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, rows] : a) EXPECT_TRUE(at::equal(rows, b.at(name))) << name;
}

TEST_P(SharedMoments, AreThoseOfOneRank) {
  const auto [format, stage] = GetParam();
  Trained one(format, {});
  for (uint64_t s = 0; s < 3; ++s) one.step(alone(), s);
  const Kept whole = one.kept(alone());
  for (const int64_t size : {2, 3, 7})
    run_ranks(size, [&, format = format, stage = stage](Communicator& ranks) {
      Trained part(format, {&ranks, stage});
      ASSERT_TRUE(part.optimizer->cut());
      for (uint64_t s = 0; s < 3; ++s) part.step(ranks, s);
      EXPECT_TRUE(at::allclose(part.unit.flat(), one.unit.flat(), 1e-6, 1e-7));
      Kept shapes;
      part.optimizer->shapes_of_moments(0, [&](const auto& name, const at::Tensor& t) { shapes[name] = t; });
      const Kept got = part.kept(ranks);
      if (stage == 1) expect_same(got, whole);  // in stage 2 the norm is summed in other parts
      ASSERT_EQ(got.size(), shapes.size());
      for (const auto& [name, rows] : got) EXPECT_EQ(rows.sizes(), shapes.at(name).sizes()) << name;

      // What one rank's checkpoint has, in parts again.
      Trained read(format, {&ranks, stage});
      read.optimizer->write_moments(
          0, [&](const std::string& name, const at::Tensor& rows) { at::Tensor(rows).copy_(whole.at(name)); });
      expect_same(read.kept(ranks), whole);
    });
}

TEST_P(SharedMoments, TakeTheirShareOfTheMemory) {
  const auto [format, stage] = GetParam();
  Trained one(format, {});
  const int64_t all = Moments::bytes_of(one.unit, format);
  std::atomic<int64_t> sum{0}, gradients{0};
  run_ranks(3, [&, format = format, stage = stage](Communicator& ranks) {
    Trained part(format, {&ranks, stage});
    const int64_t own = Moments::bytes_of(part.unit, format);
    EXPECT_LE(own, all / 3 + 2 * (300 * 4 + 3 * 128)) << "even up to a row, and the alignment of three buffers";
    sum += own, gradients += part.unit.grad().numel();
  });
  EXPECT_NEAR(double(sum), double(all), 3 * 2 * 3 * 128);
  EXPECT_EQ(gradients, one.unit.grad().numel() * (stage == 1 ? 3 : 1));
}

}  // namespace
}  // namespace dsengine
