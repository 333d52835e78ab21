// Which kernel serves an operation on a device: plugins' kernels by score, else the engine's reference.
//
//   Kernels kernels(registry, device);                          // or none: reference everywhere
//   if (!kernels.run("rms_norm", {x, w}, {y, rstd}, {{"eps", 1e-5}})) reference(…);
//
// The winner of each operation is logged once. Borrowed by models; outlives them. Called from one thread.
#pragma once
#include <ATen/core/Tensor.h>

#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "device/device.h"
#include "plugin/registry.h"

namespace dsengine {

struct KernelAttribute {
  const char* name;
  double value;
};

class Kernels {
 public:
  Kernels() = default;  // the reference alone, on the host
  Kernels(const PluginRegistry& registry, const Device& device);
  ~Kernels();
  Kernels(const Kernels&) = delete;
  Kernels& operator=(const Kernels&) = delete;

  const Device& device() const { return *device_; }
  // One more kernel, beside those there are. One for another device is passed over.
  void add(const Item& item);

  // True where some plugin offers the operation at all (and, for training, its backward).
  bool has(const std::string& operation) const { return kernels_.count(operation) > 0; }
  // "operation=kernel@hash of its file, …", best first: what results rest on besides the engine.
  std::string description() const;
  // Runs the best kernel that supports the call; false: none does. Outputs are allocated by the caller.
  bool run(const std::string& operation, at::ArrayRef<at::Tensor> inputs, at::ArrayRef<at::Tensor> outputs,
           at::ArrayRef<KernelAttribute> attributes = {}) const;

 private:
  struct Kernel {
    std::string name, sha256;
    const dse_kernel* table;
    void* self;
    mutable bool announced = false;
  };
  const Device* device_ = &Device::host();
  std::map<std::string, std::vector<Kernel>> kernels_;  // by operation, best first
};

}  // namespace dsengine
