#include "memory/offload.h"

namespace dsengine {

const Device& offload_memory(const Device& device) { return device.is_apart() ? Device::host() : device; }

Ledger& offload_ledger(const Device& device) {
  return device.has_values() ? Ledger::offloaded() : Ledger::meta_offloaded();
}

}  // namespace dsengine
