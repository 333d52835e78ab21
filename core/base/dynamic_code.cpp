#include "base/dynamic_code.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "base/check.h"

namespace dsengine {

namespace {

constexpr int kDecades = 7;

// As torch.linspace(0.1, 1, count) has it, in float32, with one rounding.
float boundary(int count, int i) {
  const float step = (1.0f - 0.1f) / float(count - 1);
  return i < count / 2 ? std::fma(step, float(i), 0.1f) : std::fma(-step, float(count - i - 1), 1.0f);
}

// 0 and 1, and in each decade below 1 the middles between equally many boundaries, twice as many as in the decade
// below.
std::vector<float> dynamic_values(bool with_sign) {
  std::vector<float> values{0, 1};
  for (int decade = 0; decade < kDecades; ++decade) {
    const int middles = 1 << (with_sign ? decade : decade + 1);
    const auto factor = float(std::pow(10.0, decade - kDecades + 1));
    for (int i = 0; i < middles; ++i) {
      const float middle = factor * ((boundary(middles + 1, i) + boundary(middles + 1, i + 1)) / 2);
      values.push_back(middle);
      if (with_sign) values.push_back(-middle);
    }
  }
  std::ranges::sort(values);
  return values;
}

}  // namespace

DynamicCode::DynamicCode(bool with_sign) : first_(1 << 16) {
  const auto values = dynamic_values(with_sign);
  DSE_CHECK(values.size() == values_.size(), "{} values", values.size());
  std::ranges::copy(values, values_.begin());
  for (size_t i = 0; i + 1 < values_.size(); ++i) midpoints_[i] = (values_[i] + values_[i + 1]) / 2;
  midpoints_.back() = std::numeric_limits<float>::infinity();
  for (uint32_t upper = 0; upper < first_.size(); ++upper) {
    // Of all floats with these upper bits, the least: of a negative one the lower bits are all set.
    const float least = std::bit_cast<float>(upper << 16 | (upper >> 15 ? 0xFFFF : 0));
    if (std::isnan(least)) continue;
    first_[upper] = uint8_t(std::ranges::lower_bound(midpoints_, least) - midpoints_.begin());
  }
}

const DynamicCode& DynamicCode::of_signed() {
  static const DynamicCode code(true);
  return code;
}

const DynamicCode& DynamicCode::of_unsigned() {
  static const DynamicCode code(false);
  return code;
}

uint8_t DynamicCode::nearest(float x) const {
  uint8_t code = first_[std::bit_cast<uint32_t>(x) >> 16];
  while (x > midpoints_[code]) ++code;
  return code;
}

void DynamicCode::encode(std::span<const float> row, std::span<uint8_t> codes, std::span<float> scales) const {
  for (size_t begin = 0, b = 0; begin < row.size(); begin += kBlock, ++b) {
    const size_t end = std::min(row.size(), begin + kBlock);
    float largest = 0;
    for (size_t i = begin; i < end; ++i) largest = std::max(largest, std::abs(row[i]));
    scales[b] = largest;
    const float divisor = largest > 0 ? largest : 1;
    for (size_t i = begin; i < end; ++i) codes[i] = nearest(row[i] / divisor);
  }
}

void DynamicCode::decode(std::span<const uint8_t> codes, std::span<const float> scales, std::span<float> row) const {
  for (size_t begin = 0, b = 0; begin < row.size(); begin += kBlock, ++b)
    for (size_t i = begin; i < std::min(row.size(), begin + kBlock); ++i) row[i] = values_[codes[i]] * scales[b];
}

}  // namespace dsengine
