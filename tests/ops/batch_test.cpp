// What a forward reads of ragged sequences, worked by hand, and its bounds on the host.
#include "ops/batch.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/check.h"

namespace dsengine {
namespace {

at::Tensor ids(std::vector<int64_t> values) { return at::tensor(values, at::kLong); }

TEST(BatchTest, PacksRaggedSequences) {
  const std::vector<int32_t> a{5, 6, 7}, none, b{4};
  const Batch batch = pack(Device::host(), {a, none, b});
  EXPECT_EQ(batch.offsets, (std::vector<int64_t>{0, 3, 3, 4}));
  EXPECT_EQ(batch.sequences(), 3);
  EXPECT_EQ(batch.longest, 3);
  EXPECT_EQ(batch.least_id, 4);
  EXPECT_EQ(batch.largest_id, 7);
  EXPECT_TRUE(at::equal(batch.tokens, ids({5, 6, 7, 4})));
  EXPECT_TRUE(at::equal(batch.positions, ids({0, 1, 2, 0})));
  EXPECT_TRUE(at::equal(batch.lengths, ids({3, 3, 3, 1})));
}

TEST(BatchTest, GoesOnAfterWhatACacheHolds) {
  const std::vector<int32_t> a{5}, b{6, 8};
  const Batch batch = pack(Device::host(), {a, b}, {4, 0});
  EXPECT_TRUE(at::equal(batch.positions, ids({4, 0, 1})));
  EXPECT_TRUE(at::equal(batch.lengths, ids({5, 2, 2})));
  EXPECT_EQ(batch.longest, 5);
  EXPECT_THROW(pack(Device::host(), {a, b}, {1}), std::exception);
}

TEST(BatchTest, AnEmptyOneIsLegal) {
  const Batch batch = pack(Device::host(), {});
  EXPECT_EQ(batch.offsets, std::vector<int64_t>{0});
  EXPECT_EQ(batch.tokens.numel(), 0);
  EXPECT_EQ(batch.longest, 0);
}

}  // namespace
}  // namespace dsengine
