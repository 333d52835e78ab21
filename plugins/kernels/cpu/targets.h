// Which instruction sets the files that include Highway are built for: AVX2 with FMA, and AVX-512. All of them round
// alike, for sums are chains of fused multiply-adds. The machine decides at run time (kernels.h: instruction_set).
//
//   #define HWY_TARGET_INCLUDE "product.cpp"
//   #include "targets.h"
//   #include <hwy/foreach_target.h>
#pragma once

#ifndef HWY_DISABLE_PCLMUL_AES
#define HWY_DISABLE_PCLMUL_AES  // which AVX2 is asked to have otherwise, and nobody here wants
#endif
#undef HWY_DISABLED_TARGETS
#define HWY_DISABLED_TARGETS (~(HWY_AVX2 | HWY_AVX3))
#include <hwy/detect_targets.h>
