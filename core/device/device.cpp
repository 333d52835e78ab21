#include "device/device.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace dsengine {
namespace {

template <class T>
at::Tensor staged(std::span<const T> values, at::ScalarType type) {
  at::Tensor tensor = Device::host().empty({int64_t(values.size())}, type);
  std::ranges::copy(values, tensor.mutable_data_ptr<T>());
  return tensor;
}

}  // namespace

const Device& Device::host() {
  static const Device cpu(at::kCPU);
  return cpu;
}

at::Tensor Device::empty(at::IntArrayRef sizes, at::ScalarType type) const { return at::empty(sizes, options(type)); }

at::Tensor Device::upload(std::span<const int64_t> values) const { return staged(values, at::kLong).to(where_); }

at::Tensor Device::upload(std::span<const float> values) const { return staged(values, at::kFloat).to(where_); }

at::Tensor Device::upload(std::span<const double> values) const { return staged(values, at::kDouble).to(where_); }

}  // namespace dsengine
