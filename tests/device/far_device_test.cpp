// The device for tests itself: it computes as the host does, and fails where a graphics card would.
#include "device/far_device.h"

#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

namespace dsengine {
namespace {

TEST(FarDevice, ComputesAsTheHostDoes) {
  at::manual_seed(1);
  const at::Tensor a = at::randn({3, 4}), b = at::randn({4, 5});
  const at::Tensor there = a.to(far_device().where()).matmul(b.to(far_device().where()));
  EXPECT_FALSE(there.is_cpu());
  EXPECT_TRUE(at::equal(on_host(there), a.matmul(b)));
  at::Tensor x = a.to(far_device().where());
  x.narrow(0, 1, 1).zero_();
  x.select(1, 2).add_(1);
  EXPECT_EQ(on_host(x)[1][2].item<float>(), 1);
  EXPECT_EQ(x[1][0].item<float>(), 0);
  x.requires_grad_(true);
  const at::AutoGradMode grad(true);
  torch::autograd::backward({(x * x).sum()}, {});
  EXPECT_TRUE(at::equal(on_host(x.grad()), on_host(x.detach()) * 2));
}

TEST(FarDevice, RefusesTheHostsTensors) {
  const at::Tensor here = at::ones({3}), there = here.to(far_device().where());
  EXPECT_ANY_THROW(there + here);
  EXPECT_ANY_THROW(here + there);
  EXPECT_ANY_THROW(there.index_select(0, at::zeros({1}, at::kLong)));
  EXPECT_ANY_THROW(at::cat({there, here}));
  EXPECT_EQ((there + at::scalar_tensor(2)).sum().item<float>(), 9) << "a number may be the host's";
}

TEST(FarDeviceDeath, ItsMemoryCannotBeReadOnTheHost) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");  // backwards have threads
  const at::Tensor x = far_device().empty({4}, at::kFloat);
  EXPECT_DEATH(std::printf("%f", double(*x.const_data_ptr<float>())), "");
}

}  // namespace
}  // namespace dsengine
