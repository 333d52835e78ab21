#include "memory/offload.h"

namespace dsengine {

Ledger& offload_ledger(const Device& device) {
  return device.has_values() ? Ledger::offloaded() : Ledger::meta_offloaded();
}

}  // namespace dsengine
