// How long an operation takes at least on a machine of these rates: what it multiplies and what it reads and writes,
// the longer of the two (the roofline; Williams, Waterman and Patterson 2009).
//
//   kernels.set_rates({.read_gb_per_s = 30, .product_gflops = 180});      // of kernels on the meta device
//   model.hidden(batch);
//   double seconds = kernels.take_seconds();
#pragma once
#include <ATen/core/Tensor.h>

#include "ops/operation.h"

namespace dsengine {

struct MachineRates {
  double read_gb_per_s = 0;   // 1e9 bytes
  double product_gflops = 0;  // of float32; a multiplication and an addition are two operations
  double bf16_gflops = 0;     // of bfloat16 with sums in float32; 0: as float32's
};

// Of one call, with the catalogue's slots and integers.
double least_seconds(const Operation& operation, int64_t rows, at::ArrayRef<at::Tensor> inputs,
                     at::ArrayRef<at::Tensor> outputs, at::ArrayRef<int64_t> integers, const MachineRates& rates);

}  // namespace dsengine
