#include "device/arrival.h"

#include <ATen/ATen.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include "device/device.h"

namespace dsengine {

Arrival::Arrival(const at::Tensor& from) {
  if (!from.is_cuda()) {
    here_ = on_host(from);
    return;
  }
  here_ = at::empty(from.sizes(), from.options().device(at::kCPU).pinned_memory(true));
  here_.copy_(from.detach(), /*non_blocking=*/true);
  ready_ = std::make_shared<c10::Event>(from.device().type());
  ready_->record(c10::impl::VirtualGuardImpl(from.device().type()).getStream(from.device()));
}

const at::Tensor& Arrival::wait() {
  if (ready_) ready_->synchronize();
  ready_.reset();
  return here_;
}

}  // namespace dsengine
