// How ranks share what is trained of a unit (ZeRO, Rajbhandari et al. 2020): each owns one part of it, whose moments,
// and perhaps gradient, it alone keeps.
//
//   const Sharding sharding{&ranks, 2};
//   const std::vector<int64_t> cuts = shard_cuts(layout, span, sharding.size());    // of rank r: [cuts[r], cuts[r +
//   1])
#pragma once
#include <cstdint>
#include <vector>

#include "comm/communicator.h"
#include "param/layout.h"

namespace dsengine {

// Of one rank nothing is shared, whatever the stage.
struct Sharding {
  Communicator* ranks = nullptr;  // null: one. Outlives what is trained
  int64_t stage = 0;              // 0: each has all; 1: parts of the moments; 2: of the gradients too

  int64_t size() const { return ranks && stage > 0 ? ranks->size() : 1; }
  int64_t rank() const { return size() > 1 ? ranks->rank() : 0; }
  bool gradients() const { return size() > 1 && stage >= 2; }
};

// size + 1 places in a span of the layout, from 0 to span.numel: as even as matrices allow, of which no row is cut, so
// that a block of codes has one owner.
std::vector<int64_t> shard_cuts(const ParamLayout& layout, const ParamLayout::Span& span, int64_t size);

}  // namespace dsengine
