// Matrices that come and go: what is read is what was written, as the format has it; vectors stay.
#include "param/kept_matrices.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/check.h"
#include "base/nf4.h"
#include "param/storage.h"

namespace dsengine {
namespace {

// Widths of a block and a bit, of one block, of less; parts that alternate.
ParamLayout layout() {
  return {"layers.0",
          {{{{"q", {6, 100}}, {"k", {6, 100}}}, 2},
           {{{"o", {5, 64}}}},
           {{{"norm", {100}, Init::ones}}},
           {{{"down", {3, 7}}}}},
          sizeof(float)};
}

at::Tensor drawn(int64_t numel) {
  at::manual_seed(3);
  return at::randn({numel}, at::kFloat);
}

TEST(KeptMatrices, InFloat32AreThemselves) {
  const ParamLayout of = layout();
  KeptMatrices kept(of, Device::host(), at::kFloat, nullptr);
  const at::Tensor matrices = drawn(of.decayed_numel()), read = at::empty_like(matrices);
  kept.write(matrices);
  kept.read(read);
  EXPECT_TRUE(at::equal(read, matrices));
}

// A row has blocks of its own: each is what the code makes of it alone, wherever it lies in the buffer.
TEST(KeptMatrices, InNf4AreRowsEachByItself) {
  const ParamLayout of = layout();
  const Kernels kernels;
  KeptMatrices kept(of, Device::host(), at::kFloat,
                    std::make_shared<ops::RowCodes>(kernels, ops::RowCode::nf4, at::kFloat));
  const at::Tensor matrices = drawn(of.decayed_numel()), read = at::empty_like(matrices);
  kept.write(matrices);
  kept.read(read);
  int64_t rows = 0;
  for (size_t b = 0; b < of.blocks().size(); ++b) {
    if (!of.blocks()[b].decay()) continue;
    const int64_t width = of.blocks()[b].row_numel();
    const at::Tensor given = of.block_of(matrices, b), got = of.block_of(read, b);
    for (int64_t r = 0; r < given.size(0); ++r, ++rows) {
      const at::Tensor row = given[r].contiguous();
      std::vector<uint8_t> codes(size_t(nf4::bytes_of(width)));
      std::vector<float> scales(size_t(nf4::blocks_of(width)));
      at::Tensor alone = at::empty({width}, at::kFloat);
      nf4::encode({row.const_data_ptr<float>(), size_t(width)}, codes, scales);
      nf4::decode(codes, scales, {alone.mutable_data_ptr<float>(), size_t(width)});
      EXPECT_TRUE(at::equal(got[r], alone)) << "block " << b << ", row " << r;
      EXPECT_GT((got[r] - row).abs().max().item<float>(), 0.0f) << "nothing was rounded";
      // Half of the widest gap between two of the code's values, 0.152, of the largest number.
      EXPECT_LE((got[r] - row).abs().max().item<float>(), 0.153f * row.abs().max().item<float>());
    }
  }
  EXPECT_EQ(rows, 20);
  const at::Tensor again = at::empty_like(matrices);
  kept.write(read);  // what was read is written as it is
  kept.read(again);
  for (size_t b = 0; b < of.blocks().size(); ++b) {
    if (!of.blocks()[b].decay()) continue;
    EXPECT_TRUE(at::equal(of.block_of(again, b), of.block_of(read, b)));
  }
}

TEST(ParamStorage, ItsMatricesComeAndGoAndItsVectorsStay) {
  const ParamLayout of = layout();
  ParamStorage unit = ParamStorage::without_matrices(of, at::full({of.numel() - of.decayed_numel()}, 2.0f));
  EXPECT_FALSE(unit.whole());
  const size_t norm = 2;
  const auto expect_vectors = [&] { EXPECT_TRUE(at::equal(unit.block(norm), at::full({100}, 2.0f))); };
  expect_vectors();
  EXPECT_TRUE(unit.block(0).is_meta());
  EXPECT_EQ(unit.block(0).sizes(), at::IntArrayRef({12, 100}));
  EXPECT_EQ(unit.part(0, 1).sizes(), at::IntArrayRef({3, 2, 100}));
  const at::Tensor matrices = drawn(of.decayed_numel());
  unit.bring(matrices);
  EXPECT_TRUE(at::equal(unit.block(1), of.block_of(matrices, 1)));
  EXPECT_TRUE(at::equal(unit.part(0, 1), of.part_of(matrices, 0, 1)));
  expect_vectors();
  EXPECT_THROW(unit.bring(matrices), InternalError) << "it has them";
  EXPECT_TRUE(unit.let_go().is_same(matrices));
  EXPECT_TRUE(unit.block(1).is_meta());

  std::vector<bool> which(of.blocks().size());
  which[1] = true;
  EXPECT_THROW(unit.train(which), InternalError) << "a matrix that goes";
  which[1] = false, which[norm] = true;
  unit.train(which);
  EXPECT_EQ(unit.trained_flat().data_ptr(), unit.block(norm).data_ptr());
  EXPECT_TRUE(unit.trained(norm));
  EXPECT_FALSE(unit.trained(0));
}

}  // namespace
}  // namespace dsengine
