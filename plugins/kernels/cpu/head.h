// What is kept of a row of logits, in part and whole.
#pragma once
#include <cstdint>

namespace cpu {

constexpr int64_t kHeadTile = 256;  // of the vocabulary
constexpr int64_t kHeadRows = 112;  // a block of them beside a tile of logits stays in the cache

struct TileSums {
  float peak, sum, weighted;
};
struct HeadSums {
  float lse, mean_logit;
};
struct HeadSlopes {
  float temperature, cap, lse, d_logp, d_entropy, entropy;
};

}  // namespace cpu
