// No kernel, on a device whose memory is not the host's: the engine's reference there.
#pragma once
#include "device/far_device.h"
#include "ops/built_kernels.h"

namespace dsengine {

inline const Kernels& far_kernels() {
  static const Kernels kernels(built_plugins(), far_device());
  return kernels;
}

}  // namespace dsengine
