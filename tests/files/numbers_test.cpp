#include "files/numbers.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

namespace dsengine {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// A 16-bit format's value by its definition, in double: sign, exponent field, mantissa field.
double defined_value(uint16_t bits, int mantissa_bits, int bias) {
  const int exponent = (bits & 0x7fff) >> mantissa_bits, mantissa = bits & ((1 << mantissa_bits) - 1);
  const int largest = (1 << (15 - mantissa_bits)) - 1;
  double magnitude;
  if (exponent == largest) {
    magnitude = mantissa ? std::nan("") : static_cast<double>(kInfinity);
  } else {
    const int unit = std::max(exponent, 1) - bias - mantissa_bits;
    magnitude = std::ldexp(mantissa + (exponent ? 1 << mantissa_bits : 0), unit);
  }
  return bits & 0x8000 ? -magnitude : magnitude;
}

struct Format {
  const char* name;
  int mantissa_bits, bias;
  float (*widen)(uint16_t);
  uint16_t (*narrow)(float);
};
const Format kFormats[] = {{"f16", 10, 15, f16_to_float, float_to_f16}, {"bf16", 7, 127, bf16_to_float, float_to_bf16}};

TEST(Numbers, AllValuesAreTheDefinedOnesAndRoundTrip) {
  for (const auto& format : kFormats) {
    for (uint32_t bits = 0; bits < 65536; ++bits) {
      const auto stored = static_cast<uint16_t>(bits);
      const float value = format.widen(stored);
      const double expected = defined_value(stored, format.mantissa_bits, format.bias);
      const uint16_t back = format.narrow(value);
      if (std::isnan(expected)) {
        ASSERT_TRUE(std::isnan(value) && std::isnan(format.widen(back))) << format.name << " " << bits;
      } else {
        ASSERT_EQ(value, expected) << format.name << " " << bits;
        ASSERT_EQ(back, stored) << format.name << " " << bits;
      }
      ASSERT_EQ(std::signbit(value), bits >= 0x8000) << format.name << " " << bits;
    }
  }
}

// Between two neighbours: the nearer one; in the middle, the one with an even last bit.
TEST(Numbers, NarrowingRoundsToNearestEven) {
  for (const auto& format : kFormats) {
    const uint32_t infinity = ((1u << (15 - format.mantissa_bits)) - 1) << format.mantissa_bits;
    for (uint32_t bits = 0; bits + 1 < infinity; ++bits) {
      const auto low = static_cast<uint16_t>(bits), high = static_cast<uint16_t>(bits + 1);
      const double below = defined_value(low, format.mantissa_bits, format.bias);
      const double above = defined_value(high, format.mantissa_bits, format.bias);
      const auto middle = static_cast<float>((below + above) / 2);  // exact: one more bit of mantissa
      ASSERT_EQ(format.narrow(middle), bits % 2 ? high : low) << format.name << " " << bits;
      ASSERT_EQ(format.narrow(std::nextafter(middle, 0.0f)), low) << format.name << " " << bits;
      ASSERT_EQ(format.narrow(std::nextafter(middle, kInfinity)), high) << format.name << " " << bits;
      ASSERT_EQ(format.narrow(-middle), (bits % 2 ? high : low) | 0x8000) << format.name << " " << bits;
    }
  }
}

TEST(Numbers, WhatIsTooLargeBecomesInfinity) {
  EXPECT_EQ(float_to_f16(65504.0f), 0x7bff);
  EXPECT_EQ(float_to_f16(65519.996f), 0x7bff);
  EXPECT_EQ(float_to_f16(65520.0f), 0x7c00);
  EXPECT_EQ(float_to_f16(-1e30f), 0xfc00);
  EXPECT_EQ(float_to_bf16(std::numeric_limits<float>::max()), 0x7f80);
  EXPECT_EQ(float_to_bf16(-kInfinity), 0xff80);
  EXPECT_EQ(float_to_f16(0x1p-25f), 0);  // half the least subnormal: ties to zero, which is even
  EXPECT_EQ(float_to_f16(0x1.000002p-25f), 1);
}

TEST(Numbers, NotANumberStaysOneWhateverItsBits) {
  for (const uint32_t mantissa : {1u, 0x1fffu, 0x400000u, 0x7fffffu}) {
    for (const uint32_t sign : {0u, 0x80000000u}) {
      const auto nan = std::bit_cast<float>(sign | 0x7f800000u | mantissa);
      EXPECT_TRUE(std::isnan(f16_to_float(float_to_f16(nan)))) << mantissa;
      EXPECT_TRUE(std::isnan(bf16_to_float(float_to_bf16(nan)))) << mantissa;
    }
  }
}

TEST(Numbers, ArraysConvertAtAnyAlignment) {
  const std::vector<float> values{0.0f, -1.5f, 0.333333343f, 1e-8f, 70000.0f};
  for (const Dtype dtype : {Dtype::F64, Dtype::F32, Dtype::F16, Dtype::BF16}) {
    std::vector<std::byte> bytes(values.size() * dtype_bytes(dtype) + 1);
    const auto odd = std::span(bytes).subspan(1);
    from_f32(dtype, values, odd);
    std::vector<float> back(values.size());
    to_f32(dtype, odd, back);
    for (size_t i = 0; i < values.size(); ++i) {
      const float expected = dtype == Dtype::F16    ? f16_to_float(float_to_f16(values[i]))
                             : dtype == Dtype::BF16 ? bf16_to_float(float_to_bf16(values[i]))
                                                    : values[i];
      EXPECT_EQ(back[i], expected) << dtype_name(dtype) << " " << i;
    }
  }
}

}  // namespace
}  // namespace dsengine
