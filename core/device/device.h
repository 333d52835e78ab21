// Where tensors live and work runs. The session owns it, everyone else borrows it. A tensor is made by a device, or
// like another tensor.
//
//   const Device& device = model.device();
//   at::Tensor x = device.empty({rows, width}, at::kFloat);
//   at::Tensor offsets = device.upload(std::span(host_offsets));     // a batch going in
//
// Host and device shall meet in three places: a batch going in (`upload`), columns coming out (rl/forward.h), and
// checkpoints; what else reads a tensor on the host is listed in docs/architecture.md. Not copyable; outlives the
// tensors' owners. Any thread.
#pragma once
#include <ATen/core/Tensor.h>
#include <c10/core/TensorOptions.h>

#include <cstdint>
#include <span>

namespace dsengine {

class Device {
 public:
  explicit Device(at::Device where) : where_(where) {}
  Device(const Device&) = delete;
  Device& operator=(const Device&) = delete;
  // The host's own memory: what is staged, drawn or read there before it goes anywhere.
  static const Device& host();

  at::Device where() const { return where_; }
  at::TensorOptions options(at::ScalarType type) const { return at::TensorOptions().device(where_).dtype(type); }
  // The values are whatever memory holds.
  at::Tensor empty(at::IntArrayRef sizes, at::ScalarType type) const;
  // A copy of numbers in host memory, [n].
  at::Tensor upload(std::span<const int64_t> values) const;
  at::Tensor upload(std::span<const float> values) const;
  at::Tensor upload(std::span<const double> values) const;

 private:
  at::Device where_;
};

}  // namespace dsengine
