// An allocator of LibTorch that writes a ledger of what another one gives out.
//
//   count_host_memory();                                          // LibTorch's own, in the host's ledger
//   CountingAllocator counting(ledger, *c10::GetCPUAllocator());
//   c10::DataPtr block = counting.allocate(1 << 20);              // charged to the thread's tag
//   block.clear();                                                // released from it
//
// A block keeps the other's alignment, up to c10::gAlignment bytes, and what is charged of it is what was asked for:
// the note in front of it, of as many bytes, is not. Its context is its data, as LibTorch's raw interface wants. Throws
// OutOfMemory where the other has none. The ledger and the other outlive every block.
#pragma once
#include <c10/core/Allocator.h>

#include "memory/ledger.h"

namespace dsengine {

class CountingAllocator : public c10::Allocator {
 public:
  // inner: of host memory, with a raw interface.
  CountingAllocator(Ledger& ledger, c10::Allocator& inner);

  c10::DataPtr allocate(size_t bytes) override;
  c10::DeleterFnPtr raw_deleter() const override;
  void copy_data(void* to, const void* from, size_t bytes) const override { inner_.copy_data(to, from, bytes); }

 private:
  Ledger& ledger_;
  c10::Allocator& inner_;
};

// Puts one around LibTorch's for the host, which writes Ledger::host() from then on. It stays until the process ends; a
// second call does nothing. Not while other threads make tensors.
void count_host_memory();
// The same of tensors without values (Device::meta), in Ledger::meta().
void count_meta_memory();

}  // namespace dsengine
