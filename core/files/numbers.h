// Conversion between float and the narrower types that weights are stored in. Narrowing rounds to the
// nearest value, ties to even; what is too large becomes infinity, NaN stays NaN.
//
//   uint16_t stored = float_to_bf16(1.5f);
//   float back = bf16_to_float(stored);
//   to_f32(Dtype::F16, bytes, floats);
#pragma once
#include <bit>
#include <cstdint>
#include <span>

#include "files/tensor_entry.h"

namespace dsengine {

inline float bf16_to_float(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

inline uint16_t float_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  // Rounding would carry a NaN with a full mantissa into infinity; it is cut and made quiet instead.
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40u);
  return static_cast<uint16_t>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

inline float f16_to_float(uint16_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31u, mantissa = bits & 0x3ffu;
  if (exponent == 0) {  // zero and subnormals: units of 2^-24
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return std::bit_cast<float>(std::bit_cast<uint32_t>(magnitude) | sign);
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + (127 - 15);
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

inline uint16_t float_to_f16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | (magnitude >> 13 & 0x3ffu);  // NaN, quiet
  } else if (magnitude >= 0x477ff000u) {
    half = 0x7c00u;  // 65520 is half way past the largest, and up
  } else if (magnitude < 0x38800000u) {
    // Below 2^-14. The spacing of floats at 0.5 is 2^-24, a subnormal's unit: the addition rounds.
    half = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5f) - std::bit_cast<uint32_t>(0.5f);
  } else {
    half = (magnitude - ((127u - 15u) << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  }
  return static_cast<uint16_t>(sign | half);
}

// Whole arrays, for the dtypes of is_float. `bytes` needs no alignment and holds out.size() elements.
void to_f32(Dtype dtype, std::span<const std::byte> bytes, std::span<float> out);
// The same the other way; F64 included.
void from_f32(Dtype dtype, std::span<const float> values, std::span<std::byte> out);

}  // namespace dsengine
