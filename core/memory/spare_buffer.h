// The buffer of what was let go of last, for what is brought next: layers are mostly of one size.
//
//   SpareBuffer spare(device, MemoryTag::weights);
//   at::Tensor values = spare.take(numel, at::kFloat);                // [numel], whatever memory holds
//   spare.give(std::move(values));
//
// Borrows the device. One thread.
#pragma once
#include <ATen/core/Tensor.h>

#include <utility>

#include "device/device.h"
#include "memory/ledger.h"

namespace dsengine {

class SpareBuffer {
 public:
  SpareBuffer(const Device& device, MemoryTag tag) : device_(device), tag_(tag) {}

  at::Tensor take(int64_t numel, at::ScalarType type) {
    if (spare_.defined() && spare_.numel() == numel && spare_.scalar_type() == type)
      return std::exchange(spare_, at::Tensor());
    let_go();  // before there is another
    const MemoryScope scope(tag_);
    return device_.empty({numel}, type);
  }
  void give(at::Tensor buffer) noexcept { spare_ = std::move(buffer); }
  void let_go() noexcept { spare_ = at::Tensor(); }

 private:
  const Device& device_;
  MemoryTag tag_;
  at::Tensor spare_;
};

}  // namespace dsengine
