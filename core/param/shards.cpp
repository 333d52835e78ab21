#include "param/shards.h"

#include <algorithm>

namespace dsengine {

std::vector<int64_t> shard_cuts(const ParamLayout& layout, const ParamLayout::Span& span, int64_t size) {
  std::vector<int64_t> cuts{0};
  for (int64_t r = 1; r < size; ++r) {
    int64_t cut = span.numel / size * r + span.numel % size * r / size;
    for (size_t b = 0; b < layout.blocks().size(); ++b) {
      const ParamBlock& block = layout.blocks()[b];
      const int64_t begin = layout.offset_of(b) - span.begin, end = begin + layout.numel_of(b);
      if (!block.decay() || cut <= begin || cut >= end) continue;
      const int64_t width = block.row_numel(), row = (cut - begin + width / 2) / width;
      cut = begin + row * width;
      break;
    }
    cuts.push_back(std::max(cut, cuts.back()));
  }
  cuts.push_back(span.numel);
  return cuts;
}

}  // namespace dsengine
