// Which rank computes which rows of a minibatch.
//
//   Dealing dealing = deal(row_units(experience, rows, needs), ranks.size(), micro_batch_size);
//   for (int64_t m = 0; m < dealing.micro_batches; ++m)         // as many on every rank
//     compute(dealing.micro_batch(ranks.rank(), m));            // places in `rows`, perhaps none
//
// Rows that belong together stay on one rank. The heaviest unit goes first, each to the rank with the fewest tokens so
// far (of equals to that with fewer rows, then to the lower one); a rank keeps its rows in the order of the minibatch.
// It follows from the units alone, so all ranks come to the same. On one rank nothing changes its place.
#pragma once
#include <span>
#include <vector>

#include "plugin/instance.h"
#include "rl/experience.h"

namespace dsengine {

// Neighbours that stay together, [first, last): a pair, the answers to one prompt where they are compared, or a row.
struct RowUnit {
  int64_t first, last;
  int64_t tokens;  // of their sequences, prompts included: what they cost
};

// Of some rows of an experience, by their places in `rows`.
std::vector<RowUnit> row_units(const Experience& experience, std::span<const int64_t> rows, const dse_needs& needs);

struct Dealing {
  std::vector<std::vector<int64_t>> rows;  // of each rank, ascending
  int64_t micro_batch_size = 0;            // rows
  int64_t micro_batches = 0;               // of every rank: as many as the rank with the most rows has

  std::vector<int64_t> micro_batch(int64_t rank, int64_t index) const;
};

// micro_batch_size 0: all rows of a rank are one micro-batch.
Dealing deal(std::span<const RowUnit> units, int64_t ranks, int64_t micro_batch_size);

}  // namespace dsengine
