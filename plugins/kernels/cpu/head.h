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

inline int64_t head_tiles(int64_t vocabulary) { return (vocabulary + kHeadTile - 1) / kHeadTile; }
inline int64_t head_tile_size(int64_t vocabulary, int64_t tile) {
  const int64_t left = vocabulary - tile * kHeadTile;
  return left < kHeadTile ? left : kHeadTile;
}

// Of logits [rows, vocabulary], each row at a temperature of its own: sums [rows, tiles]; those weighted by z where
// they are wanted.
void sum_head_tiles(const float* logits, const float* temperatures, int64_t rows, int64_t vocabulary, bool weighted,
                    TileSums* sums);
// sums [rows, tiles] -> lse and, unless null, mean [rows].
void merge_head_tiles(const TileSums* sums, int64_t rows, int64_t tiles, float* lse, float* mean);

}  // namespace cpu
