// Numbers as half-bytes: each block of 64 keeps its largest magnitude, and of each number the nearest of 16 values
// between -1 and 1, quantiles of the normal distribution (Dettmers et al. 2023, "QLoRA"; NF4 as bitsandbytes has it).
//
//   nf4::encode(row, codes, scales);        // bytes_of(width) codes, blocks_of(width) scales
//   nf4::decode(codes, scales, row);
//
// A block begins where its row does, so that no block has parts of two rows; the last may be shorter. The first of two
// numbers lies in a byte's high half; at the end of a row of odd width the low half holds the code of 0. Any thread.
#pragma once
#include <array>
#include <cstdint>
#include <span>

namespace dsengine::nf4 {

constexpr int64_t kBlock = 64;  // elements

inline int64_t blocks_of(int64_t width) { return (width + kBlock - 1) / kBlock; }
inline int64_t bytes_of(int64_t width) { return (width + 1) / 2; }

const std::array<float, 16>& values();  // by code; ascending

// Of two values as near the lower. A block with a NaN becomes NaN throughout, one with an infinity NaN and infinity.
void encode(std::span<const float> row, std::span<uint8_t> codes, std::span<float> scales);
void decode(std::span<const uint8_t> codes, std::span<const float> scales, std::span<float> row);

}  // namespace dsengine::nf4
