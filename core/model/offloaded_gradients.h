// Gradients whose buffers lie beside the device's memory: a section's are brought before its backward, added to there,
// and taken back. The sums are made in the same order as if they had never left.
//
//   OffloadedGradients gradients(device, weights);      // of storages whose gradients are parted
//   gradients.bring(section);  …  gradients.take_back(section);
//
// Borrows both. One thread.
#pragma once
#include <utility>

#include "memory/offload.h"
#include "memory/spare_buffer.h"
#include "param/storage.h"

namespace dsengine {

struct Weights;

class OffloadedGradients {
 public:
  OffloadedGradients(const Device& device, Weights& weights)
      : weights_(weights), spare_(device, MemoryTag::gradients) {}

  void bring(size_t section);
  void take_back(size_t section);
  // The buffer of what was taken back, which is kept for the next section.
  void let_go_buffer() { spare_.let_go(); }
  Traffic take_traffic() { return std::exchange(traffic_, {}); }

 private:
  Weights& weights_;
  SpareBuffer spare_;
  Traffic traffic_;
};

}  // namespace dsengine
