// Stages on a device whose memory is not the host's (device/far_device.h), which no plugin has kernels for: the
// reference's run on the host. LibTorch sums in another order where memory is aligned otherwise.
#include "ops/far_kernels.h"
// after far_kernels.h
#include "rl/other_device.h"

namespace dsengine {
namespace {

class FarRun : public testing::TestWithParam<std::vector<std::string>> {
 protected:
  void TearDown() override { EXPECT_GT(far::Memory::all().taken(), taken_); }
  const int64_t taken_ = far::Memory::all().taken();
};

TEST_P(FarRun, IsTheReferencesRun) {
  expect_alike(TinyRun(), far_kernels(), std::string(kSftStage) + kRewardStage + kPpoStage, GetParam());
}

INSTANTIATE_TEST_SUITE_P(Settings, FarRun, testing::ValuesIn(kSettings));

TEST(FarDevice, ServesEveryAlgorithm) { expect_every_algorithm(far_kernels()); }

TEST(FarDevice, ResumesToTheSameBits) { expect_resumed_to_the_same_bits(far_kernels()); }

}  // namespace
}  // namespace dsengine
