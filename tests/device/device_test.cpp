// Tensors lie where their device says, and hold what the host had.
#include "device/device.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

namespace dsengine {
namespace {

TEST(DeviceTest, UploadsWhatTheHostHas) {
  const Device device(at::kCPU);
  std::vector<int64_t> ids{3, 0, 7};
  const at::Tensor tensor = device.upload(ids);
  ids[0] = 9;  // a copy
  EXPECT_TRUE(at::equal(tensor, at::tensor({3, 0, 7}, at::kLong)));
  EXPECT_TRUE(at::equal(device.upload(std::vector<float>{0.5f}), at::tensor({0.5f})));
  EXPECT_EQ(device.upload(std::vector<float>{}).numel(), 0);
}

TEST(DeviceTest, EveryTensorNamesIt) {
  const Device meta(at::kMeta);  // a device without memory: nothing but a name
  EXPECT_EQ(meta.empty({2, 3}, at::kHalf).device().type(), at::kMeta);
  EXPECT_EQ(meta.upload(std::vector<int64_t>{1}).device().type(), at::kMeta);
  EXPECT_EQ(Device::host().empty({1}, at::kFloat).device().type(), at::kCPU);
}

}  // namespace
}  // namespace dsengine
