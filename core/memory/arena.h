// One buffer for the tensors of a family that live as long as each other: the weights of a model's sections, the
// moments of an optimizer.
//
//   Arena arena(device, at::kFloat, {layout0.numel(), layout1.numel()});    // the sizes that will be taken
//   at::Tensor first = arena.take(layout0.numel());                         // [numel], whatever memory holds
//
// A tensor begins at a multiple of 128 bytes. The buffer lasts until the last tensor of it is gone, whether or not the
// arena does; it is charged to the tag of the thread that makes the arena.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "device/device.h"

namespace dsengine {

class Arena {
 public:
  static constexpr int64_t kAlignment = 128;  // bytes

  Arena(const Device& device, at::ScalarType type, const std::vector<int64_t>& numels);
  // There is room for it.
  at::Tensor take(int64_t numel);

 private:
  int64_t room_for(int64_t numel) const { return (numel + step_ - 1) / step_ * step_; }

  int64_t step_;  // elements in kAlignment bytes
  at::Tensor buffer_;
  int64_t next_ = 0;
};

}  // namespace dsengine
