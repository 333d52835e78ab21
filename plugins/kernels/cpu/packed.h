// The catalogue's layouts of packed weights.
#pragma once
#include <cstdint>

namespace cpu {

constexpr int64_t kSide = 32;                               // outputs of a panel, inputs of a block
constexpr int64_t kBlockBytes = kSide * kSide + kSide * 2;  // int8: a block and its scales
constexpr int64_t blocks_of(int64_t inner) { return (inner + kSide - 1) / kSide; }

}  // namespace cpu
