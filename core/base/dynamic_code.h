// Numbers as bytes: each block of 256 keeps its largest magnitude, and of each number the nearest of 256 values between
// -1 and 1 (or 0 and 1) that lie close at 0 and wide at 1 (Dettmers et al. 2022, "8-bit optimizers via block-wise
// quantization"; the values are those of bitsandbytes' create_dynamic_map).
//
//   const DynamicCode& code = DynamicCode::of_signed();
//   code.encode(values, codes, scales);              // a row: ceil(n / 256) scales
//   code.decode(codes, scales, values);
//
// A block begins where its row does, so that no block has parts of two rows. -1 itself has no value, as there: a block
// whose largest magnitude is a negative number's does not come back as it was. Any thread.
#pragma once
#include <array>
#include <cstdint>
#include <span>
#include <vector>

namespace dsengine {

class DynamicCode {
 public:
  static constexpr int64_t kBlock = 256;
  static int64_t blocks_of(int64_t row) { return (row + kBlock - 1) / kBlock; }

  static const DynamicCode& of_signed();    // -1 to 1
  static const DynamicCode& of_unsigned();  // 0 to 1

  void encode(std::span<const float> row, std::span<uint8_t> codes, std::span<float> scales) const;
  void decode(std::span<const uint8_t> codes, std::span<const float> scales, std::span<float> row) const;
  const std::array<float, 256>& values() const { return values_; }

 private:
  explicit DynamicCode(bool with_sign);
  uint8_t nearest(float x) const;  // of x from -1 to 1; of two as near the lower

  std::array<float, 256> values_;     // ascending
  std::array<float, 256> midpoints_;  // between a value and the next; the last: infinity
  std::vector<uint8_t> first_;        // by the upper 16 bits of x: the nearest to the least such x
};

}  // namespace dsengine
