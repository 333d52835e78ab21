// The arena: where its tensors begin, that they do not overlap, how long its buffer lasts, and what it refuses.
#include "memory/arena.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "base/check.h"
#include "memory/counting_allocator.h"
#include "memory/ledger.h"

namespace dsengine {
namespace {

TEST(Arena, TensorsAreAlignedAndApart) {
  for (const auto type : {at::kFloat, at::kDouble, at::kBFloat16, at::kChar}) {
    const std::vector<int64_t> numels{1, 31, 0, 32, 33, 1000};
    Arena arena(Device::host(), type, numels);
    std::vector<at::Tensor> tensors;
    for (const auto numel : numels) {
      tensors.push_back(arena.take(numel).fill_(int64_t(tensors.size())));
      EXPECT_EQ(tensors.back().numel(), numel);
      EXPECT_TRUE(tensors.back().is_contiguous());
      const auto address = reinterpret_cast<uintptr_t>(tensors.back().data_ptr());  // of an empty one there is none
      EXPECT_TRUE(numel == 0 || address % Arena::kAlignment == 0) << numel;
    }
    for (size_t i = 0; i < tensors.size(); ++i) EXPECT_TRUE(at::all(tensors[i] == int64_t(i)).item<bool>()) << i;
  }
}

TEST(Arena, HasRoomForWhatWasSaidAlone) {
  Arena arena(Device::host(), at::kFloat, {32, 1});
  EXPECT_THROW(arena.take(65), InternalError);
  EXPECT_THROW(arena.take(-1), InternalError);
  arena.take(33);  // two of the steps of 32
  EXPECT_THROW(arena.take(1), InternalError);
  arena.take(0);
}

TEST(Arena, TheBufferLastsAsLongAsItsTensors) {
  Ledger& ledger = Ledger::host();
  count_host_memory();
  const int64_t before = ledger.now(MemoryTag::weights);
  at::Tensor tensor;
  {
    const MemoryScope scope(MemoryTag::weights);
    Arena arena(Device::host(), at::kFloat, {10000, 10000});
    arena.take(10000);
    tensor = arena.take(10000);
  }
  EXPECT_GE(ledger.now(MemoryTag::weights) - before, 80000);
  EXPECT_LE(ledger.now(MemoryTag::weights) - before, 80000 + 3 * Arena::kAlignment);
  tensor = at::Tensor();
  EXPECT_EQ(ledger.now(MemoryTag::weights), before);
}

}  // namespace
}  // namespace dsengine
