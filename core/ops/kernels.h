// Which kernel serves an operation on a device: the plugins' kernel with the highest priority that can be bound to it,
// or none, where the engine's reference (ops/reference) does.
//
//   Kernels kernels(registry, device);                     // or Kernels(): the reference everywhere, on the host
//   const BoundKernel norm = kernels.bind({.op = dse::Op::rms_norm, .in = width, .eps = 1e-5});
//   if (norm) norm.run({x, w}, {y, rstd}, rows);
//
// The plugins are opened when the first operation is bound. The winner of each operation is logged once (at debug level
// where there is no other), and why a better one was passed over: one that cannot be bound hinders nobody. Borrowed by
// models; outlives them, and the registry outlives it. Called from one thread.
#pragma once
#include <ATen/core/Tensor.h>
#include <spdlog/common.h>

#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "device/device.h"
#include "ops/operation.h"
#include "ops/work.h"
#include "plugin/registry.h"

namespace dsengine {

// A kernel's instance for one operation; none where the reference serves it. Borrowed from Kernels.
class BoundKernel {
 public:
  BoundKernel() = default;
  explicit operator bool() const { return instance_ != nullptr; }
  // It is bound, and claims that a row has the same bits in any batch. Of one library: two such operations that come to
  // the same numbers (catalogue.hpp) come to the same bits.
  bool row_invariant() const;
  bool same_library(const BoundKernel& other) const;
  // The catalogue's slots, in order; an undefined tensor is an empty slot, and missing ones at the end are empty too.
  // Outputs are allocated by the caller. UserError where the kernel fails.
  void run(at::ArrayRef<at::Tensor> inputs, at::ArrayRef<at::Tensor> outputs, int64_t rows,
           at::ArrayRef<double> reals = {}, at::ArrayRef<int64_t> integers = {}) const;

 private:
  friend class Kernels;
  struct Instance;
  explicit BoundKernel(const Instance* instance) : instance_(instance) {}
  const Instance* instance_ = nullptr;
};

// On the meta device the kernels are those of the host, or of a card that need not be there, and are not run: their
// workspaces are taken, and the seconds that they would need are counted.
class Kernels {
 public:
  Kernels();
  // for_card: of the meta device.
  Kernels(const PluginRegistry& registry, const Device& device, bool for_card = false);
  ~Kernels();
  Kernels(const Kernels&) = delete;
  Kernels& operator=(const Kernels&) = delete;

  const Device& device() const { return *device_; }
  // Whether a graphics card computes, or would; planned for without any kernel for cards, the host's stand for them.
  bool on_card() const;
  // Of what lies in the host's memory beside a device's own; without such, these.
  const Kernels& beside() const;
  // Of a model whose rollouts shall have the bits of its training: kernels of invariant rows come before faster ones,
  // and before LibTorch's. Where these are so already, they are the same.
  const Kernels& exact() const;
  bool is_exact() const { return exact_first_; }
  // On the meta device: of the machine that is planned for, and what its calls take there at least since the last call.
  void set_rates(const MachineRates& rates) { rates_ = rates; }
  double take_seconds() const { return std::exchange(seconds_, 0) + (exact_ ? exact_->take_seconds() : 0); }
  // One more kernel, beside those of the registry. One for another device is passed over. Before the first bind.
  void add(const Item& item) const;

  BoundKernel bind(const Operation& operation) const;
  // Of what others can do one after the other, for generation alone: none where no kernel does it whole, where a
  // recorded step could not hold it, or where generation shall have the bits of training (exact).
  BoundKernel bind_whole(const Operation& operation) const;
  // Whether all that was bound so far is served by kernels that a recorded step may hold (Device::record).
  bool recordable() const { return recordable_; }
  // Whether some plugin offers the op at all.
  bool has(dse::Op op) const { return candidates().contains(op); }
  // "op=kernel@hash of its file, …" of all that are offered here, bound or not: what results may rest on besides the
  // engine.
  std::string description() const;

 private:
  struct Candidate {
    std::string name, label, file, sha256;
    const dse_kernel* table;
  };
  using Candidates = std::map<dse::Op, std::vector<Candidate>>;  // best first
  const Candidates& candidates() const;
  friend class BoundKernel;
  void announce(spdlog::level::level_enum level, const std::string& line) const;

  const PluginRegistry* registry_ = nullptr;
  mutable bool read_ = false;  // what the registry has
  mutable std::unique_ptr<const Kernels> beside_;
  mutable std::unique_ptr<Kernels> exact_;
  bool exact_first_ = false;
  const Device* device_ = &Device::host();
  bool for_card_ = false;
  mutable bool planned_for_card_ = false;  // and there are kernels for it
  mutable Candidates candidates_;
  mutable bool recordable_ = true;
  mutable std::list<BoundKernel::Instance> instances_;  // a list: they are referred to
  mutable std::set<std::string> announced_;
  MachineRates rates_;
  mutable double seconds_ = 0;
};

}  // namespace dsengine
