// Models on a device whose memory is not the host's (device/far_device.h): the reference's values and gradients of
// every family, and cached generation. LibTorch sums in another order where memory is aligned otherwise: 1e-5 of the
// largest.
#include "ops/far_kernels.h"
// after far_kernels.h
#include "model/other_device.h"

namespace dsengine {
namespace {

class FarModel : public testing::TestWithParam<std::string> {};

TEST_P(FarModel, IsTheReferences) {
  const std::string name = GetParam();
  const auto here = told_by(name, reference_kernels()), far = told_by(name, far_kernels());
  ASSERT_EQ(here.size(), far.size());
  for (size_t i = 0; i < here.size(); ++i) {
    EXPECT_EQ(far[i].device(), far_device().where());
    expect_close(here[i], far[i], name + " " + std::to_string(i), 1e-5);
  }
}

TEST_P(FarModel, IsTrainedFromTheHostsMemory) {
  const std::string name = GetParam();
  expect_trained_alike(name, trained_by(name, reference_kernels(), false), trained_by(name, far_kernels(), true));
}

INSTANTIATE_TEST_SUITE_P(Golden, FarModel, testing::ValuesIn(golden_names("causal_lm") + golden_names("reward")),
                         [](const auto& info) { return info.param; });

}  // namespace
}  // namespace dsengine
