// Weights that a rollout reads narrower: what they are worth, and that a product with them has the bits of one with
// what they unpack to.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "built_kernels.h"
#include "ops/ops.h"
#include "ops/reference/reference.h"

namespace dsengine {
namespace {

using at::Tensor;

// Each of 32 inputs and an output has a scale of its own: off by half a step of the largest, and float16's rounding.
TEST(Packed, Int8IsOffByHalfAStep) {
  at::manual_seed(3);
  const int64_t out = 37, in = 70;
  Tensor w = at::randn({out, in}) * at::logspace(-3, 3, out).unsqueeze(1);
  w[5].zero_();
  const Tensor unpacked =
      reference::unpacked_weights(reference::pack_weights(w, Packing::int8), in, out, Packing::int8);
  for (int64_t o = 0; o < out; ++o)
    for (int64_t i = 0; i < in; i += 32) {
      const int64_t count = std::min<int64_t>(32, in - i);
      const Tensor block = w[o].narrow(0, i, count), off = (unpacked[o].narrow(0, i, count) - block).abs();
      const float step = block.abs().max().item<float>() / 127;
      EXPECT_LE(off.max().item<float>(), step * (0.5f + 127.0f / 2048)) << o << " " << i;
    }
  EXPECT_TRUE(at::equal(unpacked[5], at::zeros({in})));
}

// Blocks so small that the scale has few bits: the largest weights keep their sign. No number stays none.
TEST(Packed, Int8OfTheSmallestAndOfNone) {
  Tensor w = at::zeros({2, 32});
  for (int64_t i = 0; i < 32; ++i) w[0][i] = (i % 2 ? -1 : 1) * 127 * 1.49 / 16777216;  // 2^-24: a scale's last bit
  w[1].fill_(1.0f), w[1][7] = NAN;
  for (const auto* kernels : {&built_kernels(), &reference_kernels()}) {
    const ops::PackedLinear packed(*kernels, at::kFloat, 32, 2, Packing::int8);
    const Tensor unpacked = reference::unpacked_weights(packed.pack(w), 32, 2, Packing::int8);
    EXPECT_TRUE(at::equal(unpacked[0].sign(), w[0].sign())) << unpacked[0];
    EXPECT_TRUE(unpacked[1].isnan().all().item<bool>()) << unpacked[1];
  }
}

TEST(Packed, Bf16IsLibTorchs) {
  at::manual_seed(3);
  const Tensor w = at::randn({37, 70});
  const Tensor unpacked = reference::unpacked_weights(reference::pack_weights(w, Packing::bf16), 70, 37, Packing::bf16);
  EXPECT_TRUE(at::equal(unpacked, w.to(at::kBFloat16).to(at::kFloat)));
}

// The kernels pack what the reference packs, byte for byte, and multiply as they multiply the unpacked weights.
TEST(Packed, ProductsHaveTheBitsOfTheUnpackedWeights) {
  at::manual_seed(3);
  for (const auto packing : {Packing::bf16, Packing::int8})
    for (const auto& [in, out] : {std::pair<int64_t, int64_t>{64, 32}, {70, 37}, {530, 100}, {8, 1}, {33, 64}}) {
      const ops::PackedLinear packed(built_kernels(), at::kFloat, in, out, packing);
      const ops::Linear plain(built_kernels(), at::kFloat, in, out);
      const Tensor w = at::randn({out, in}), b = at::randn({out});
      const Tensor bytes = packed.pack(w), unpacked = reference::unpacked_weights(bytes, in, out, packing);
      EXPECT_TRUE(at::equal(bytes, reference::pack_weights(w, packing))) << in << " " << out;
      for (const int64_t rows : {0, 1, 2, 7, 14, 15, 29, 60, 400}) {
        const Tensor x = at::randn({rows, in}), more = at::randn({rows, out});
        EXPECT_TRUE(at::equal(packed.forward(x, bytes, b, more), plain.forward(x, unpacked, b, more)))
            << rows << " rows, " << in << " to " << out;
      }
    }
}

}  // namespace
}  // namespace dsengine
