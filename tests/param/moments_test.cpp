// Moments in fewer bits: the codes beside bitsandbytes' (tests/golden/make_moments.py), rounding to bf16 beside its
// expectation, updates beside the same update in float32, and what is kept read and written by parameter.
#include "param/moments.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <map>

#include "base/dynamic_code.h"
#include "base/json.h"
#include "comm/local.h"
#include "memory/arena.h"
#include "memory/counting_allocator.h"
#include "ops/built_kernels.h"
#include "param/adamw.h"

namespace dsengine {
namespace {

const Json& golden() {
  static const Json json = read_json(DSE_TEST_DIR "/golden/moments.json");
  return json;
}

class DynamicCodeOf : public testing::TestWithParam<const char*> {
 protected:
  const Json& golden_ = golden().at(GetParam());
  const DynamicCode& code_ =
      std::string(GetParam()) == "signed" ? DynamicCode::of_signed() : DynamicCode::of_unsigned();
};
INSTANTIATE_TEST_SUITE_P(Both, DynamicCodeOf, testing::Values("signed", "unsigned"));

TEST_P(DynamicCodeOf, HasTheValuesOfBitsandbytes) {
  const auto map = golden_.at("map").get<std::vector<float>>();
  ASSERT_EQ(map.size(), 256u);
  for (size_t i = 0; i < map.size(); ++i) EXPECT_NEAR(code_.values()[i], map[i], 1e-7 * std::abs(map[i])) << i;
}

TEST_P(DynamicCodeOf, ReadsTheCodesOfBitsandbytes) {
  for (size_t r = 0; r < golden_.at("rows").size(); ++r) {
    const auto codes = golden_.at("codes")[r].get<std::vector<uint8_t>>();
    const auto scales = golden_.at("scales")[r].get<std::vector<float>>();
    const auto values = golden_.at("values")[r].get<std::vector<float>>();
    std::vector<float> own(codes.size());
    code_.decode(codes, scales, own);
    for (size_t i = 0; i < own.size(); ++i)
      EXPECT_NEAR(own[i], values[i], 1.5e-7 * std::abs(values[i])) << r << " " << i;
  }
}

// On the CPU bitsandbytes rounds to some 65536ths of the scale before it looks for the nearest, so that below a
// thousandth its codes are others; above, they are one apart where a number lies between two.
TEST_P(DynamicCodeOf, MakesTheCodesOfBitsandbytes) {
  size_t equal = 0, all = 0;
  for (size_t r = 0; r < golden_.at("rows").size(); ++r) {
    const auto row = golden_.at("rows")[r].get<std::vector<float>>();
    const auto codes = golden_.at("codes")[r].get<std::vector<int>>();
    std::vector<uint8_t> own(row.size());
    std::vector<float> scales(size_t(DynamicCode::blocks_of(int64_t(row.size()))));
    code_.encode(row, own, scales);
    EXPECT_EQ(scales, golden_.at("scales")[r].get<std::vector<float>>()) << "row " << r;
    for (size_t i = 0; i < row.size(); ++i) {
      if (std::abs(row[i]) <= 1e-3 * scales[i / DynamicCode::kBlock]) continue;
      EXPECT_LE(std::abs(int(own[i]) - codes[i]), 1) << "row " << r << " element " << i;
      equal += own[i] == codes[i], ++all;
    }
  }
  EXPECT_GE(double(equal), 0.99 * double(all)) << "of " << all;
}

TEST_P(DynamicCodeOf, TakesTheNearestOfAllValues) {
  const float low = code_.values().front(), high = code_.values().back();
  for (int i = 0; i <= 20000; ++i) {
    // The first element makes the scale 1.
    const std::vector<float> row{high, low + (high - low) * float(i) / 20000};
    std::vector<uint8_t> codes(2);
    std::vector<float> scale(1), back(2);
    code_.encode(row, codes, scale), code_.decode(codes, scale, back);
    float least = 2;
    for (const float value : code_.values()) least = std::min(least, std::abs(value - row[1]));
    ASSERT_LE(std::abs(back[1] - row[1]), least + 1e-7f) << row[1];  // in between, either
  }
}

// Two fused matrices, rows of no whole blocks, and vectors.
std::vector<ParamBlock> blocks(int64_t interleave = 0) {
  return {{{{"norm", {5}, Init::ones, false, -1, 0, 0, ParamRole::norm}}},
          {{{"gate", {4, 300}}, {"up", {4, 300}}}, interleave},
          {{{"bias", {3}, Init::zeros}}},
          {{{"down", {7, 40}}}}};
}

at::Tensor drawn(at::IntArrayRef shape, uint64_t key) {
  at::Tensor t = at::empty(shape, at::kFloat);
  const Philox draws(1, Purpose::evaluate, key);
  for (int64_t i = 0; i < t.numel(); ++i) t.mutable_data_ptr<float>()[i] = float(draws.normal(uint64_t(i)));
  return t;
}

struct Trained {
  explicit Trained(MomentFormat format, int64_t interleave = 0, bool offload = false)
      : unit("layers.0", blocks(interleave), Device::host(), at::kFloat) {
    unit.train();
    for (size_t b = 0; b < unit.blocks().size(); ++b)
      for (size_t p = 0; p < unit.blocks()[b].parts.size(); ++p) {
        at::Tensor part = unit.part(b, p);
        const auto& spec = unit.blocks()[b].parts[p];
        part.copy_(drawn(spec.shape, name_hash(spec.tensor)).view(part.sizes()));
      }
    optimizer.emplace(
        built_kernels(), std::vector<ParamStorage*>{&unit},
        AdamWSettings{.weight_decay = 0.1, .grad_clip = 0, .moments = format, .seed = 7, .offload = offload});
  }
  void step(uint64_t s) {
    write_placed(unit, unit.grad(), [&](const std::string& place, const at::Tensor& rows) {
      rows.copy_(drawn(rows.sizes(), name_hash(place) + s));
    });
    LocalCommunicator alone;
    optimizer->step(1e-2, alone);
  }
  std::map<std::string, at::Tensor> kept() const {
    std::map<std::string, at::Tensor> all;
    std::as_const(*optimizer).moments()[0].read([&](const std::string& name, const at::Tensor& rows) {
      all[name] = rows.clone();
    });
    return all;
  }
  ParamStorage unit;
  std::optional<AdamW> optimizer;
};

class MomentsIn : public testing::TestWithParam<MomentFormat> {};
INSTANTIATE_TEST_SUITE_P(Formats, MomentsIn,
                         testing::Values(MomentFormat::fp32, MomentFormat::bf16, MomentFormat::bits8),
                         [](const auto& format) { return std::string("In_") + name_of(format.param); });

// m = (1 - beta1) g and v = (1 - beta2) g² after one step, to the format's precision: bf16 has 8 bits and may round
// either way; of a code the widest gap is 0.0141 (signed) or 0.0071 of the block's largest number.
TEST_P(MomentsIn, AreOneStepsToTheFormatsPrecision) {
  Trained trained(GetParam());
  trained.step(0);
  const at::Tensor g = trained.unit.grad();
  const auto& moments = trained.optimizer->moments()[0];
  const at::Tensor mean = (moments.mean() - 0.1 * g).abs(), square = (moments.square() - 0.05 * g * g).abs();
  const double exact = 1e-6, of_mean = (0.1 * g.abs()).max().item<double>(),
               of_square = (0.05 * g * g).max().item<double>();
  const auto worst = [](const at::Tensor& t) { return t.max().item<double>(); };
  switch (GetParam()) {
    case MomentFormat::fp32:
      EXPECT_LE(worst(mean), exact);
      EXPECT_LE(worst(square), exact);
      break;
    case MomentFormat::bf16:
      EXPECT_LE(worst(mean - g.abs() * 0.1 / 128), exact);
      EXPECT_LE(worst(square - 0.05 * g * g / 128), exact);
      EXPECT_GT(worst(mean), exact) << "it is rounded";
      break;
    case MomentFormat::bits8:
      EXPECT_LE(worst(mean), 0.0071 * of_mean + exact);
      EXPECT_LE(worst(square), 0.0036 * of_square + exact);
      EXPECT_GT(worst(mean), exact) << "it is rounded";
      break;
  }
  // What is no matrix is exact in 8 bits.
  if (GetParam() == MomentFormat::bits8) {
    const int64_t matrices = trained.unit.trained_decayed();
    EXPECT_LE(worst(mean.narrow(0, matrices, mean.numel() - matrices)), exact);
  }
}

TEST_P(MomentsIn, MoveWeightsAsFloat32Does) {
  Trained exact(MomentFormat::fp32), trained(GetParam());
  const at::Tensor before = exact.unit.flat().clone();
  for (uint64_t s = 0; s < 20; ++s) exact.step(s), trained.step(s);
  const at::Tensor moved = exact.unit.flat() - before, difference = trained.unit.flat() - exact.unit.flat();
  const double share = difference.norm().item<double>() / moved.norm().item<double>();
  EXPECT_LE(share, GetParam() == MomentFormat::fp32 ? 0 : 0.1);  // random gradients: nothing averages out
  EXPECT_GT(moved.norm().item<double>(), 0);
}

// Blocks never straddle rows: how the rows of a fused block lie changes no bit. (bf16's draws are of places.)
TEST(Moments, AreTheSameHoweverRowsLie) {
  for (const auto format : {MomentFormat::fp32, MomentFormat::bits8}) {
    Trained adjacent(format), alternating(format, 2);
    for (uint64_t s = 0; s < 3; ++s) adjacent.step(s), alternating.step(s);
    const auto a = adjacent.kept(), b = alternating.kept();
    ASSERT_EQ(a.size(), b.size());
    for (const auto& [name, rows] : a) EXPECT_TRUE(at::equal(rows, b.at(name))) << name_of(format) << " " << name;
  }
}

TEST_P(MomentsIn, GoOnFromWhatWasKept) {
  Trained one(GetParam()), other(GetParam());
  for (uint64_t s = 0; s < 3; ++s) one.step(s);
  const auto kept = one.kept();
  other.optimizer->moments()[0].write(
      [&](const std::string& name, const at::Tensor& rows) { rows.copy_(kept.at(name)); });
  at::Tensor weights = other.unit.flat();
  weights.copy_(one.unit.flat());
  other.optimizer->set_steps(3);
  one.step(3), other.step(3);
  EXPECT_TRUE(at::equal(one.unit.flat(), other.unit.flat()));
  for (const auto& [name, rows] : one.kept()) EXPECT_TRUE(at::equal(rows, other.kept().at(name))) << name;
}

TEST(Moments, TakeTheBytesThatTheyShould) {
  Trained trained(MomentFormat::fp32);
  const int64_t all = trained.unit.grad().numel(), matrices = trained.unit.trained_decayed();
  EXPECT_EQ(Moments::bytes_of(trained.unit, MomentFormat::fp32), 8 * all);
  EXPECT_EQ(Moments::bytes_of(trained.unit, MomentFormat::bf16), 4 * all);
  // Two codes an element, a float for each block of 256 or less: two a row of 300, one a row of 40.
  const int64_t scales = (8 * 2 + 7) * 4;
  EXPECT_NEAR(double(Moments::bytes_of(trained.unit, MomentFormat::bits8)),
              double(2 * (matrices + scales + 4 * (all - matrices))), 6 * Arena::kAlignment);
}

// The mean of many roundings of one number is the number: the error of a mean of n is 1 / sqrt(n) of a gap.
TEST(Moments, RoundToBf16WithoutBias) {
  ParamStorage unit("u", {{{{"w", {64, 64}}}}}, Device::host(), at::kFloat);
  unit.train();
  at::Tensor bytes = at::empty({Moments::bytes_of(unit, MomentFormat::bf16)}, at::kByte);
  const Kernels kernels;
  const MomentKernels by(kernels, MomentFormat::bf16);
  Moments moments(unit, MomentFormat::bf16, bytes, by);
  const float value = 1.0f + 0.3f / 128;  // 0.3 of the way to the next bf16
  double sum = 0;
  constexpr int kTimes = 50;
  for (uint64_t t = 0; t < kTimes; ++t) {
    moments.update(Philox(3, Purpose::round, t),
                   [&](int64_t, int64_t, const at::Tensor& m, const at::Tensor& v) { m.fill_(value), v.fill_(value); });
    sum += moments.mean().mean().item<double>() + moments.square().mean().item<double>();
  }
  const double n = 2.0 * kTimes * 4096, gap = 1.0 / 128;
  EXPECT_NEAR(sum / (2 * kTimes), value, 5 * gap * std::sqrt(0.21 / n));
  EXPECT_FALSE(at::equal(moments.mean(), moments.square())) << "each has draws of its own";
}

// Beside the device's memory: other buffers, the same bits.
TEST_P(MomentsIn, OffloadedAreTheSame) {
  count_host_memory();
  const int64_t before = Ledger::offloaded().now(MemoryTag::moments), device = Ledger::host().now(MemoryTag::moments);
  Trained here(GetParam());
  const int64_t bytes = Ledger::host().now(MemoryTag::moments) - device;
  Trained there(GetParam(), 0, true);
  EXPECT_GE(Ledger::offloaded().now(MemoryTag::moments) - before, bytes);
  EXPECT_EQ(Ledger::host().now(MemoryTag::moments) - device, bytes);
  for (uint64_t s = 0; s < 3; ++s) here.step(s), there.step(s);
  EXPECT_TRUE(at::equal(here.unit.flat(), there.unit.flat()));
  const auto a = here.kept(), b = there.kept();
  ASSERT_EQ(a.size(), b.size());
  for (const auto& [name, rows] : a) EXPECT_TRUE(at::equal(rows, b.at(name))) << name;
  // A gradient and a weight there, the weight back; perhaps without what lies between blocks.
  int64_t elements = 0;
  for (size_t b = 0; b < there.unit.blocks().size(); ++b) elements += there.unit.block(b).numel();
  const int64_t moved = there.optimizer->take_traffic().bytes, each = 3 * 3 * int64_t(sizeof(float));
  EXPECT_GE(moved, each * elements);
  EXPECT_LE(moved, each * there.unit.grad().numel());
  EXPECT_EQ(here.optimizer->take_traffic().bytes, 0);
}

// More than is brought at a time: the border of weight decay lies in a later piece.
TEST(AdamW, OffloadedMomentsAreUpdatedInPieces) {
  const std::vector<ParamBlock> blocks{{{{"w", {1500, 1000}}}}, {{{"norm", {1000}, Init::ones}}}};
  std::vector<at::Tensor> weights;
  for (const bool offload : {false, true}) {
    ParamStorage unit("layers.0", blocks, Device::host(), at::kFloat);
    unit.flat().copy_(drawn({unit.layout().numel()}, 1));
    unit.train();
    unit.grad().copy_(drawn({unit.layout().numel()}, 2));
    AdamW optimizer(built_kernels(), {&unit}, {.weight_decay = 0.5, .offload = offload});
    LocalCommunicator alone;
    for (int s = 0; s < 2; ++s) optimizer.step(1e-2, alone);
    EXPECT_EQ(optimizer.take_traffic().bytes, offload ? 2 * 3 * unit.layout().numel() * int64_t(sizeof(float)) : 0);
    weights.push_back(unit.flat());
  }
  EXPECT_TRUE(at::equal(weights[0], weights[1]));
}

}  // namespace
}  // namespace dsengine
