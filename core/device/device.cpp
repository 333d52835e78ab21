#include "device/device.h"

#include <ATen/ATen.h>
#include <torch/library.h>

#include <algorithm>

namespace dsengine {
namespace {

template <class T>
at::Tensor staged(std::span<const T> values, at::ScalarType type) {
  at::Tensor tensor = Device::host().empty({int64_t(values.size())}, type);
  std::ranges::copy(values, tensor.mutable_data_ptr<T>());
  return tensor;
}

at::Tensor selected_shape(const at::Tensor& from, int64_t dim, const at::Tensor& index) {
  auto sizes = from.sizes().vec();
  sizes[size_t(at::maybe_wrap_dim(dim, from.dim()))] = index.numel();
  return at::empty(sizes, from.options());
}

}  // namespace

const Device& Device::host() {
  static const Device cpu(at::kCPU);
  return cpu;
}

const Device& Device::meta() {
  // LibTorch has this one's shapes in Python alone.
  static const torch::Library shapes = [] {
    torch::Library library(torch::Library::IMPL, "aten", c10::DispatchKey::Meta, __FILE__, __LINE__);
    library.impl("index_select", TORCH_FN(selected_shape));
    return library;
  }();
  static const Device meta(at::kMeta);
  return meta;
}

at::Tensor Device::empty(at::IntArrayRef sizes, at::ScalarType type) const { return at::empty(sizes, options(type)); }

at::Tensor Device::upload(std::span<const int64_t> values) const { return staged(values, at::kLong).to(where_); }

at::Tensor Device::upload(std::span<const float> values) const { return staged(values, at::kFloat).to(where_); }

at::Tensor Device::upload(std::span<const double> values) const { return staged(values, at::kDouble).to(where_); }

at::Tensor on_host(const at::Tensor& tensor) {
  if (tensor.is_meta()) return at::zeros(tensor.sizes(), tensor.options().device(at::kCPU));
  return tensor.detach().cpu().contiguous();
}

}  // namespace dsengine
