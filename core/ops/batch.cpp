#include "ops/batch.h"

#include <algorithm>

#include "base/check.h"

namespace dsengine {

Batch pack(const Device& device, const std::vector<std::span<const int32_t>>& sequences, std::vector<int64_t> past) {
  if (past.empty()) past.assign(sequences.size(), 0);
  DSE_CHECK(past.size() == sequences.size(), "{} pasts of {} sequences", past.size(), sequences.size());
  Batch batch;
  batch.offsets.push_back(0);
  std::vector<int64_t> tokens, positions, lengths;
  for (size_t b = 0; b < sequences.size(); ++b) {
    const int64_t count = int64_t(sequences[b].size()), length = past[b] + count;
    tokens.insert(tokens.end(), sequences[b].begin(), sequences[b].end());
    for (int64_t i = past[b]; i < length; ++i) positions.push_back(i);
    lengths.insert(lengths.end(), size_t(count), length);
    batch.offsets.push_back(batch.offsets.back() + count);
    batch.longest = std::max(batch.longest, length);
  }
  if (!tokens.empty()) {
    const auto [least, largest] = std::ranges::minmax(tokens);
    batch.least_id = least, batch.largest_id = largest;
  }
  batch.past = std::move(past);
  batch.tokens = device.upload(tokens), batch.positions = device.upload(positions);
  batch.lengths = device.upload(lengths), batch.starts = device.upload(batch.offsets);
  return batch;
}

}  // namespace dsengine
