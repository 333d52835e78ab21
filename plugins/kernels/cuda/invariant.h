// Products of rows with a weight whose rows have the same bits however many there are and wherever they stand: for
// rollouts whose log-probabilities shall be those of training, bit for bit. Slower than cuBLASLt's.
//
//   launch_invariant<bf16>({.rows = N, .in = I, .out = O, .x = x, .w = w, .y = y}, stream);
#pragma once
#include "kernels.h"

namespace gpu {

// y [rows, out] = x [rows, in] w [out, in]ᵀ + bias [out] + residual [rows, out], sums in float32, in the order of `in`.
template <class T>
struct InvariantLinear {
  int64_t rows, in, out;
  const T *x = nullptr, *w = nullptr;
  const T *bias = nullptr, *residual = nullptr;  // may be null
  void* y = nullptr;
  bool wide = false;  // y is float32
};
template <class T>
void launch_invariant(const InvariantLinear<T>& linear, void* stream);

}  // namespace gpu
