// Rotary positions (Su et al. 2021): by which angles the pairs of a head turn.
#pragma once
#include "kernels.h"

namespace gpu {

// In a kernel's parameters: no memory of the card's is kept.
struct Turning {
  static constexpr int64_t kMostPairs = 128;  // heads of 256
  int64_t pairs = 0, long_after = 0;          // dimensions (i, i + pairs); no pairs: nothing turns
  float amplitude = 1, sign = 1;
  bool two_tables = false;
  float frequencies[kMostPairs] = {}, long_frequencies[kMostPairs] = {};

  Turning() = default;
  explicit Turning(const dse_operation& o);

  // cosines and sines [pairs], of a token at this position of a sequence so long; by the threads of a block.
  __device__ void angles(int64_t position, int64_t length, float* cosines, float* sines) const {
    const bool is_long = two_tables && length > long_after;
    for (int64_t i = threadIdx.x; i < pairs; i += blockDim.x) {
      // The angle is rounded to float32, as Hugging Face computes it.
      const float angle = float(position) * (is_long ? long_frequencies[i] : frequencies[i]);
      cosines[i] = cosf(angle) * amplitude, sines[i] = sinf(angle) * amplitude * sign;
    }
  }
};

// A pair that is turned by an angle of this cosine and sine.
struct TurnedPair {
  float first, second;
};
__device__ inline TurnedPair turned(float x, float y, float cosine, float sine) {
  return {x * cosine - y * sine, y * cosine + x * sine};
}

}  // namespace gpu
