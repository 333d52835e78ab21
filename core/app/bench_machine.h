// What the machine gives at most, for comparison with what a part of `dsengine bench` reaches: memory read by all
// threads, or by a card, and products of matrices by the engine's own kernels.
//
//   const MachineRates machine = measure_machine(kernels);       // takes about two seconds and 512 MiB
//   bytes / 1e9 / machine.read_gb_per_s;                         // seconds that reading them takes at least
//
// Each is the best of several, for what disturbs makes it slower only.
#pragma once
#include "ops/kernels.h"

namespace dsengine {

// Of the kernels' device; products of the type, both of MachineRates' rates being that.
MachineRates measure_machine(const Kernels& kernels, at::ScalarType type = at::kFloat);

// 1e9 operations a second of a product [rows, in] x [in, out], in so many seconds.
inline double gflops_of(int64_t rows, int64_t in, int64_t out, double seconds) {
  return 2e-9 * double(rows) * double(in) * double(out) / seconds;
}

}  // namespace dsengine
