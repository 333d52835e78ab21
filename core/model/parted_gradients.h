// Gradients whose buffers come and go: those that lie beside the device's memory, and those of which a rank keeps its
// part alone. A section's are there for its backward, are added to, and are taken back.
//
//   PartedGradients gradients(device, weights, sharding);   // of storages whose gradients are parted
//   gradients.bring(section);  …  gradients.take_back(section);
//
// What is kept whole is brought as it is, so that its sums have the order that they would have had there. Of what is
// cut a buffer of zeros is, and taken back is the sum over ranks of this rank's part: a collective, which ranks make
// alike, for each of them runs the backwards of all sections, without rows too. Borrows all three. One thread.
#pragma once
#include <utility>

#include "memory/offload.h"
#include "memory/spare_buffer.h"
#include "param/storage.h"

namespace dsengine {

struct Weights;

class PartedGradients {
 public:
  PartedGradients(const Device& device, Weights& weights, const Sharding& sharding)
      : weights_(weights), sharding_(sharding), spare_(device, MemoryTag::gradients) {}

  void bring(size_t section);
  void take_back(size_t section);
  // The buffer of what was taken back, which is kept for the next section.
  void let_go_buffer() { spare_.let_go(); }
  // Between memories; what ranks send each other is not counted.
  Traffic take_traffic() { return std::exchange(traffic_, {}); }

 private:
  Weights& weights_;
  const Sharding sharding_;
  SpareBuffer spare_;
  Traffic traffic_;
};

}  // namespace dsengine
