// Products of a few rows with a weight, bfloat16, on cards of compute capability 9.0: the weight is read once, as fast
// as memory gives it.
//
//   const ThinProduct product(in, out);
//   if (product.takes(linear)) product.run(linear);
//
// A row's bits depend on the weight's shape alone, not on how many rows there are.
#pragma once
#include "kernels.h"

namespace gpu {

// y [rows, out] = x [rows, in] w [out, in]ᵀ + bias [out] + residual [rows, out]; or an activation of it, of a gate | up
// where the product is made for it.
struct ThinLinear {
  int64_t rows;
  const bf16 *x, *w, *bias, *residual;  // the last two may be null; no residual of an activation
  void* y;
  bool wide;  // y is float32
  void* stream;
  bool activates = false;
  uint32_t activation = 0;  // DSE_SILU, …
};

class ThinProduct {
 public:
  static constexpr int64_t kMostRows = 64;  // beyond, cuBLASLt's are faster
  // out: of y. gated: w [2 out, in] = gate | up.
  ThinProduct(int64_t in, int64_t out, bool gated = false);
  bool takes(const ThinLinear& linear) const;
  void run(const ThinLinear& linear) const;

 private:
  int64_t in_, out_;
  bool gated_;
  int splits_, groups_, tile_rows_;  // of the sum, by a cluster's blocks; of four warps; rows of w that a block takes
};

}  // namespace gpu
