// Memory beside a device's own, where lies what it does not work with all the time.
//
//   { const OffloadScope scope(device, MemoryTag::moments);  moments = offload_memory(device).empty(…); }
//   traffic.count(bytes, [&] { staged.copy_(weights); });
//
// Beside a card it is pinned, where the system lets it be: the card reads and writes it by itself (device/cuda.h). Of
// the host it is a second book over the same memory: nothing is saved there, and every path is the one of a device with
// memory of its own.
#pragma once
#include <chrono>
#include <cstdint>

#include "device/device.h"
#include "memory/ledger.h"

namespace dsengine {

// The host's; of a device without memory of its own, the same.
const Device& offload_memory(const Device& device);
Ledger& offload_ledger(const Device& device);

// What the thread takes until the end of the scope lies there.
class OffloadScope {
 public:
  OffloadScope(const Device& device, MemoryTag tag) : scope_(tag, offload_ledger(device)) {}

 private:
  MemoryScope scope_;
};

// What was brought for what reads it, and taken back.
struct Traffic {
  int64_t bytes = 0;     // that went from one memory to another
  int64_t unpacked = 0;  // as they are read, of what is kept narrower
  double seconds = 0;    // that both took

  template <class F>
  void count(int64_t moved, const F& move) {
    const auto began = std::chrono::steady_clock::now();
    move();
    bytes += moved;
    seconds += std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  }
  Traffic& operator+=(const Traffic& other) {
    bytes += other.bytes, unpacked += other.unpacked, seconds += other.seconds;
    return *this;
  }
};

}  // namespace dsengine
