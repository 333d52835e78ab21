// A thread's memory for what its kernels pack, kept for the thread's life and grown to the most that was asked for.
//
//   float* block = cpu::scratch(count, 0);                  // 64-byte aligned; the next call for place 0 may move it
#pragma once
#include <cstdint>

namespace cpu {

// place: 0 of products and attention, 1 of what holds something across them.
float* scratch(int64_t floats, int place);

}  // namespace cpu
