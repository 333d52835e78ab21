// NF4: small rows worked out by hand, and the codes and values of bitsandbytes (tests/golden/make_four_bit.py).
#include "base/nf4.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "base/check.h"
#include "base/json.h"

namespace dsengine {
namespace {

using ::testing::ElementsAre;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

const Json& golden() {
  static const Json json = read_json(DSE_TEST_DIR "/golden/four_bit/nf4.json");
  return json;
}

struct Encoded {
  std::vector<uint8_t> codes;
  std::vector<float> scales;
};

Encoded encoded(const std::vector<float>& row) {
  const auto width = int64_t(row.size());
  Encoded made{std::vector<uint8_t>(size_t(nf4::bytes_of(width))), std::vector<float>(size_t(nf4::blocks_of(width)))};
  nf4::encode(row, made.codes, made.scales);
  return made;
}

std::vector<float> decoded(const Encoded& made, size_t width) {
  std::vector<float> row(width);
  nf4::decode(made.codes, made.scales, row);
  return row;
}

TEST(Nf4, CountsBytesAndBlocks) {
  EXPECT_EQ(nf4::bytes_of(0), 0);
  EXPECT_EQ(nf4::bytes_of(1), 1);
  EXPECT_EQ(nf4::bytes_of(64), 32);
  EXPECT_EQ(nf4::bytes_of(65), 33);
  EXPECT_EQ(nf4::blocks_of(0), 0);
  EXPECT_EQ(nf4::blocks_of(64), 1);
  EXPECT_EQ(nf4::blocks_of(65), 2);
}

TEST(Nf4, HasTheValuesOfBitsandbytes) {
  const auto values = golden().at("values").get<std::vector<float>>();
  ASSERT_EQ(values.size(), nf4::values().size());
  for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(nf4::values()[i], values[i]) << i;
}

TEST(Nf4, SmallRows) {
  // 2 is the scale: 1.0, 0, -0.5, 0.1 of it have the codes 15, 7, 2, 8 (0.5 is nearer to 0.525 than to 0.395).
  const auto even = encoded({2, 0, -1, 0.2f});
  EXPECT_THAT(even.codes, ElementsAre(0xF7, 0x28));
  EXPECT_THAT(even.scales, ElementsAre(2));
  EXPECT_THAT(decoded(even, 4), ElementsAre(2, 0, -0.5250730514526367f * 2, 0.07958029955625534f * 2));
  // The half that is left over holds the code of 0.
  const auto odd = encoded({-3, 3, -3});
  EXPECT_THAT(odd.codes, ElementsAre(0x0F, 0x07));
  EXPECT_THAT(decoded(odd, 3), ElementsAre(-3, 3, -3));
  const auto zeros = encoded({0, -0.0f, 0});
  EXPECT_THAT(zeros.codes, ElementsAre(0x77, 0x77));
  EXPECT_THAT(zeros.scales, ElementsAre(0));
  EXPECT_THAT(decoded(zeros, 3), ElementsAre(0, 0, 0));
  EXPECT_THAT(encoded({}).codes, ElementsAre());
  EXPECT_THAT(decoded({}, 0), ElementsAre());
}

TEST(Nf4, EachBlockHasItsOwnScale) {
  std::vector<float> row(130, 1);
  row[64] = -8;
  row[128] = row[129] = 0.5f;
  const auto made = encoded(row);
  EXPECT_THAT(made.scales, ElementsAre(1, 8, 0.5f));
  const auto back = decoded(made, row.size());
  EXPECT_EQ(back[63], 1);
  EXPECT_EQ(back[64], -8);
  EXPECT_EQ(back[65], 0.16093020141124725f * 8);  // of 0.125
  EXPECT_EQ(back[129], 0.5f);
}

TEST(Nf4, MakesAndReadsTheCodesOfBitsandbytes) {
  for (const Json& golden_case : golden().at("cases")) {
    const auto row = golden_case.at("row").get<std::vector<float>>();
    const auto made = encoded(row);
    EXPECT_EQ(made.codes, golden_case.at("codes").get<std::vector<uint8_t>>()) << row.size();
    EXPECT_EQ(made.scales, golden_case.at("scales").get<std::vector<float>>()) << row.size();
    EXPECT_EQ(decoded(made, row.size()), golden_case.at("values").get<std::vector<float>>()) << row.size();
  }
}

TEST(Nf4, IsAtMostHalfAGapAway) {
  std::mt19937 random(1234);
  std::normal_distribution<float> normal;
  const auto& values = nf4::values();
  for (const size_t width : {1u, 2u, 63u, 64u, 65u, 127u, 1000u}) {
    std::vector<float> row(width);
    for (float& x : row) x = normal(random);
    const auto made = encoded(row);
    const auto back = decoded(made, width);
    for (size_t i = 0; i < width; ++i) {
      const float scale = made.scales[i / size_t(nf4::kBlock)], x = row[i] / scale;
      size_t above = 1;
      while (above + 1 < values.size() && values[above] < x) ++above;
      const float half_gap = (values[above] - values[above - 1]) / 2;
      ASSERT_LE(std::abs(back[i] - row[i]), scale * half_gap * (1 + 1e-5f)) << width << " " << i;
    }
  }
}

TEST(Nf4, WhatIsNoNumberStaysInItsBlock) {
  for (const size_t width : {128u, 100u}) {  // its second block full, and not
    for (const float odd : {std::nanf(""), kInfinity, -kInfinity}) {
      std::vector<float> row(width, 0.5f);
      row[70] = odd;
      const auto back = decoded(encoded(row), width);
      for (size_t i = 0; i < 64; ++i) EXPECT_EQ(back[i], 0.5f) << i;
      for (size_t i = 64; i < width; ++i) EXPECT_FALSE(std::isfinite(back[i])) << i;
    }
  }
}

TEST(Nf4, TheSmallestAndTheLargest) {
  for (const float x : {std::numeric_limits<float>::max(), std::numeric_limits<float>::min(),
                        std::numeric_limits<float>::denorm_min()}) {
    const auto made = encoded({x, 0, -x});
    EXPECT_EQ(made.scales, std::vector<float>{x});
    for (const float back : decoded(made, 3)) EXPECT_LE(std::abs(back), x);
  }
}

TEST(Nf4, OtherSizesAreOurOwnFault) {
  std::vector<float> row(3), scales(1);
  std::vector<uint8_t> codes(3);
  EXPECT_THROW(nf4::encode(row, codes, scales), InternalError);
  EXPECT_THROW(nf4::decode(codes, scales, row), InternalError);
}

}  // namespace
}  // namespace dsengine
