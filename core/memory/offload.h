// Memory beside a device's own, where lies what it does not work with all the time.
//
//   { const OffloadScope scope(device, MemoryTag::moments);  moments = device.empty(…); }
//   traffic.count(bytes, [&] { staged.copy_(weights); });
//
// Of the host it is a second book over the same memory: nothing is saved there, and every path is the one of a device
// with memory of its own.
#pragma once
#include <chrono>
#include <cstdint>

#include "device/device.h"
#include "memory/ledger.h"

namespace dsengine {

Ledger& offload_ledger(const Device& device);

// What the thread takes until the end of the scope lies there.
class OffloadScope {
 public:
  OffloadScope(const Device& device, MemoryTag tag) : scope_(tag, offload_ledger(device)) {}

 private:
  MemoryScope scope_;
};

// Bytes that were moved for what reads them, and the seconds that it took.
struct Traffic {
  int64_t bytes = 0;
  double seconds = 0;

  template <class F>
  void count(int64_t moved, const F& move) {
    const auto began = std::chrono::steady_clock::now();
    move();
    bytes += moved;
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  }
  Traffic& operator+=(const Traffic& other) {
    bytes += other.bytes, seconds += other.seconds;
    return *this;
  }
};

}  // namespace dsengine
