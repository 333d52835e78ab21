#include "base/nf4.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace dsengine::nf4 {
namespace {

constexpr std::array<float, 16> kValues{
    -1.0f,
    -0.6961928009986877f,
    -0.5250730514526367f,
    -0.39491748809814453f,
    -0.28444138169288635f,
    -0.18477343022823334f,
    -0.09105003625154495f,
    0.0f,
    0.07958029955625534f,
    0.16093020141124725f,
    0.24611230194568634f,
    0.33791524171829224f,
    0.44070982933044434f,
    0.5626170039176941f,
    0.7229568362236023f,
    1.0f,
};
constexpr std::array<float, 15> kMidpoints = [] {
  std::array<float, 15> midpoints{};
  for (size_t i = 0; i < midpoints.size(); ++i) midpoints[i] = (kValues[i] + kValues[i + 1]) / 2;
  return midpoints;
}();

struct Pair {
  float first, second;
};

constexpr std::array<Pair, 256> kPairs = [] {
  std::array<Pair, 256> pairs{};
  for (size_t byte = 0; byte < pairs.size(); ++byte) pairs[byte] = {kValues[byte >> 4], kValues[byte & 15]};
  return pairs;
}();

// Of each x the number of midpoints below it; a NaN is above all.
std::array<int32_t, kBlock> nearest(const std::array<float, kBlock>& block) {
  std::array<int32_t, kBlock> codes{};
  for (const float midpoint : kMidpoints)
    for (size_t i = 0; i < block.size(); ++i) codes[i] += !(block[i] <= midpoint);
  return codes;
}

float largest_magnitude(std::span<const float> block) {
  float largest = 0;  // NaN from the first NaN on
  for (const float x : block) {
    const float magnitude = std::abs(x);
    largest = magnitude > largest || std::isnan(magnitude) ? magnitude : largest;
  }
  return largest;
}

void decode_pairs(const uint8_t* __restrict codes, float scale, float* __restrict out, int64_t pairs) {
  for (int64_t i = 0; i < pairs; ++i) {
    const Pair pair = kPairs[codes[i]];
    out[2 * i] = pair.first * scale;
    out[2 * i + 1] = pair.second * scale;
  }
}

void check_sizes(size_t width, size_t codes, size_t scales) {
  DSE_CHECK(codes == size_t(bytes_of(int64_t(width))) && scales == size_t(blocks_of(int64_t(width))),
            "{} codes and {} scales for {} numbers", codes, scales, width);
}

}  // namespace

const std::array<float, 16>& values() { return kValues; }

void encode(std::span<const float> row, std::span<uint8_t> codes, std::span<float> scales) {
  check_sizes(row.size(), codes.size(), scales.size());
  constexpr float kLeast = 1e-38f;  // what is divided by at least
  for (size_t begin = 0, b = 0; begin < row.size(); begin += kBlock, ++b) {
    const auto block = row.subspan(begin, std::min(row.size() - begin, size_t(kBlock)));
    scales[b] = largest_magnitude(block);
    std::array<float, kBlock> scaled{};
    if (scales[b] != 0) {
      // As bitsandbytes: times the inverse, but divided in a last block that is not full.
      const float divisor = std::max(scales[b], kLeast), inverse = 1 / divisor;  // NaN stays NaN
      const bool full = block.size() == size_t(kBlock);
      for (size_t i = 0; i < block.size(); ++i) scaled[i] = full ? block[i] * inverse : block[i] / divisor;
    }
    const auto code = nearest(scaled);
    for (size_t i = 0; i < block.size(); i += 2) codes[(begin + i) / 2] = uint8_t(code[i] << 4 | code[i + 1]);
  }
}

void decode(std::span<const uint8_t> codes, std::span<const float> scales, std::span<float> row) {
  check_sizes(row.size(), codes.size(), scales.size());
  const auto width = int64_t(row.size());
  const uint8_t* from = codes.data();
  float* to = row.data();
  for (int64_t begin = 0, b = 0; begin < width; begin += kBlock, ++b) {
    if (width - begin >= kBlock) {  // a count known to the compiler
      decode_pairs(from + begin / 2, scales[size_t(b)], to + begin, kBlock / 2);
    } else {
      decode_pairs(from + begin / 2, scales[size_t(b)], to + begin, (width - begin) / 2);
    }
  }
  if (width % 2 != 0) to[width - 1] = kPairs[codes.back()].first * scales.back();
}

}  // namespace dsengine::nf4
