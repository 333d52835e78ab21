// The ledger: what a tag is charged with, when it is released, peaks and phases; the allocator that writes it, by
// itself and under LibTorch; what an allocation that cannot be had says.
#include "memory/ledger.h"

#include <ATen/ATen.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/alignment.h>
#include <gtest/gtest.h>

#include <thread>
#include <vector>

#include "device/device.h"
#include "memory/counting_allocator.h"

namespace dsengine {
namespace {

using enum MemoryTag;

TEST(MemoryScope, NestsAndIsOfItsThread) {
  EXPECT_EQ(MemoryScope::current(), other);
  {
    const MemoryScope outer(weights);
    {
      const MemoryScope inner(moments);
      EXPECT_EQ(MemoryScope::current(), moments);
      std::thread([] { EXPECT_EQ(MemoryScope::current(), other); }).join();
    }
    EXPECT_EQ(MemoryScope::current(), weights);
  }
  EXPECT_EQ(MemoryScope::current(), other);
}

TEST(Ledger, PeaksByTagAndPhaseSinceRestart) {
  Ledger ledger;
  ledger.charge(weights, 100);
  ledger.enter(Phase::generate);
  ledger.charge(kv_cache, 50);
  ledger.release(kv_cache, 50);
  ledger.enter(Phase::actor);
  ledger.charge(activations, 30), ledger.charge(workspace, 5);
  ledger.release(activations, 30);
  EXPECT_EQ(ledger.now(), 105);
  EXPECT_EQ(ledger.now(kv_cache), 0);
  EXPECT_EQ(ledger.peak(kv_cache), 50);
  EXPECT_EQ(ledger.peak(Phase::generate), 150);
  EXPECT_EQ(ledger.peak(Phase::actor), 135);
  EXPECT_EQ(ledger.peak(Phase::score), 0);
  EXPECT_EQ(ledger.peak(), 150);

  ledger.restart();
  EXPECT_EQ(ledger.peak(kv_cache), 0);
  EXPECT_EQ(ledger.peak(weights), 100);
  EXPECT_EQ(ledger.peak(Phase::generate), 0);
  EXPECT_EQ(ledger.peak(Phase::actor), 105);  // the phase that goes on
  ledger.enter(Phase::score);                 // what is held when it begins counts
  EXPECT_EQ(ledger.peak(Phase::score), 105);
}

TEST(Ledger, ChargesOfSeveralThreadsAddUp) {
  Ledger ledger;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 10000; ++i) {
        ledger.charge(activations, 7);
        if (i % 2) ledger.release(activations, 14);
      }
    });
  for (auto& t : threads) t.join();
  EXPECT_EQ(ledger.now(), 0);
  EXPECT_EQ(ledger.now(activations), 0);
  EXPECT_GE(ledger.peak(activations), 14);
  EXPECT_LE(ledger.peak(activations), 4 * 14);
}

TEST(Ledger, ChargeIsHeldAsLongAsItsObject) {
  Ledger ledger;
  {
    const Charge charge(ledger, columns, 12);
    EXPECT_EQ(ledger.now(columns), 12);
  }
  EXPECT_EQ(ledger.now(columns), 0);
}

struct Counting : testing::Test {
  Ledger ledger;
  CountingAllocator allocator{ledger, *c10::GetDefaultCPUAllocator()};
};

TEST_F(Counting, ABlockIsReleasedFromTheTagThatTookIt) {
  c10::DataPtr block;
  {
    const MemoryScope scope(gradients);
    block = allocator.allocate(1000);
  }
  const auto more = allocator.allocate(1);
  EXPECT_EQ(ledger.now(gradients), 1000);
  EXPECT_EQ(ledger.now(other), 1);
  const MemoryScope scope(weights);
  std::thread([&] { block.clear(); }).join();
  EXPECT_EQ(ledger.now(gradients), 0);
  EXPECT_EQ(ledger.now(weights), 0);
  EXPECT_EQ(ledger.now(), 1);
}

TEST_F(Counting, BlocksAreAlignedWritableAndTheirOwnContext) {
  std::vector<c10::DataPtr> blocks;
  for (const size_t bytes : {size_t(1), size_t(63), size_t(64), size_t(65), size_t(4096), size_t(5) << 20}) {
    auto block = allocator.allocate(bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(block.get()) % c10::gAlignment, 0u) << bytes;
    EXPECT_TRUE(allocator.is_simple_data_ptr(block));
    std::memset(block.get(), int(blocks.size()), bytes);
    blocks.push_back(std::move(block));
  }
  for (size_t i = 0; i < blocks.size(); ++i) EXPECT_EQ(*static_cast<char*>(blocks[i].get()), char(i));
  EXPECT_EQ(ledger.now(), 1 + 63 + 64 + 65 + 4096 + (5 << 20));
  blocks.clear();
  EXPECT_EQ(ledger.now(), 0);
}

TEST_F(Counting, TheRawInterfaceAndCopies) {
  void* raw = allocator.raw_allocate(48);
  EXPECT_EQ(ledger.now(), 48);
  *static_cast<int*>(raw) = 7;
  const auto copy = allocator.clone(raw, 48);
  EXPECT_EQ(*static_cast<int*>(copy.get()), 7);
  EXPECT_EQ(ledger.now(), 96);
  allocator.raw_deallocate(raw);
  EXPECT_EQ(ledger.now(), 48);
}

TEST_F(Counting, NothingIsNoBlock) {
  const auto none = allocator.allocate(0);
  EXPECT_EQ(none.get(), nullptr);
  EXPECT_EQ(allocator.raw_allocate(0), nullptr);
  allocator.raw_deallocate(nullptr);
  EXPECT_EQ(ledger.now(), 0);
}

TEST_F(Counting, WhatCannotBeHadIsNamed) {
  const auto kept = [&] {
    const MemoryScope scope(weights);
    return allocator.allocate(3 << 20);
  }();
  const MemoryScope scope(activations);
  ledger.enter(Phase::actor);
  for (const size_t bytes : {size_t(1) << 60, SIZE_MAX, SIZE_MAX / 2}) try {
      allocator.allocate(bytes);
      FAIL() << bytes;
    } catch (const OutOfMemory& e) {
      const std::string what = e.what();
      EXPECT_NE(what.find("TiB asked for (activations in phase actor)"), what.npos) << what;
      EXPECT_NE(what.find("where 3.00 MiB are held: weights 3.00 MiB;"), what.npos) << what;
      EXPECT_NE(what.find("micro_batch_size"), what.npos) << what;
    }
  EXPECT_EQ(ledger.now(), 3 << 20);
  EXPECT_EQ(ledger.now(activations), 0);
}

// LibTorch's own tensors: from at::empty, resized, and freed elsewhere.
TEST(HostLedger, CountsTensors) {
  Ledger& ledger = Ledger::host();
  count_host_memory(), count_host_memory();
  const int64_t before = ledger.now(), before_moments = ledger.now(moments);
  at::Tensor tensor;
  {
    const MemoryScope scope(moments);
    tensor = at::zeros({1000}, at::kFloat);
  }
  EXPECT_EQ(ledger.now(moments) - before_moments, 4000);
  tensor.resize_({2000});  // by this thread's tag
  EXPECT_EQ(ledger.now(moments) - before_moments, 0);
  EXPECT_EQ(ledger.now() - before, 8000);
  std::thread([&] { tensor = at::Tensor(); }).join();
  EXPECT_EQ(ledger.now(), before);
  EXPECT_THROW(at::empty({int64_t(1) << 60}, at::kChar), OutOfMemory);
}

TEST(BytesText, HasThreeDigits) {
  EXPECT_EQ(bytes_text(0), "0 bytes");
  EXPECT_EQ(bytes_text(1023), "1023 bytes");
  EXPECT_EQ(bytes_text(1536), "1.50 KiB");
  EXPECT_EQ(bytes_text(23 << 20), "23.0 MiB");
  EXPECT_EQ(bytes_text(uint64_t(512) << 30), "512 GiB");
  EXPECT_EQ(bytes_text(uint64_t(3) << 50), "3072 TiB");
}

TEST(Ledger, KnowsWhatAPhasesPeakWasMadeOf) {
  Ledger ledger;
  ledger.charge(weights, 100);
  ledger.enter(Phase::actor);
  ledger.charge(activations, 30);
  ledger.charge(workspace, 5);
  ledger.release(activations, 30);
  ledger.charge(gradients, 10);  // no peak: 115 of 135
  EXPECT_EQ(ledger.at_peak(Phase::actor, weights), 100);
  EXPECT_EQ(ledger.at_peak(Phase::actor, activations), 30);
  EXPECT_EQ(ledger.at_peak(Phase::actor, workspace), 5);
  EXPECT_EQ(ledger.at_peak(Phase::actor, gradients), 0);
  EXPECT_EQ(ledger.at_peak(Phase::score, weights), 0);
  ledger.restart();
  EXPECT_EQ(ledger.at_peak(Phase::actor, activations), 0);
  EXPECT_EQ(ledger.at_peak(Phase::actor, gradients), 10);
}

TEST(Ledger, ALimitIsOnWhatIsHeldAtOnce) {
  Ledger ledger;
  EXPECT_TRUE(ledger.has_room_for(uint64_t{1} << 62));
  {
    const LimitScope limit(ledger, 1000);
    CountingAllocator counting(ledger, *c10::GetDefaultCPUAllocator());
    c10::DataPtr first = counting.allocate(600);
    EXPECT_THROW(counting.allocate(401), OutOfMemory);
    try {
      counting.allocate(401);
    } catch (const OutOfMemory& e) {
      EXPECT_NE(std::string(e.what()).find("600 bytes of 1000 bytes (memory_limit) are held"), std::string::npos)
          << e.what();
    }
    c10::DataPtr second = counting.allocate(400);
    first.clear();
    EXPECT_EQ(ledger.now(), 400);
    EXPECT_TRUE(ledger.has_room_for(600));
  }
  EXPECT_EQ(ledger.limit(), 0);
}

TEST(MetaMemory, IsChargedThoughThereIsNone) {
  count_meta_memory();
  Ledger& ledger = Ledger::meta();
  const int64_t before = ledger.now(activations);
  {
    const MemoryScope scope(activations);
    const at::Tensor x = Device::meta().empty({1000, 1000, 1000, 1000}, at::kFloat);
    EXPECT_EQ(ledger.now(activations), before + 4'000'000'000'000);
    const at::Tensor rows = x.view({1000, -1}).index_select(0, Device::meta().upload(std::vector<int64_t>{1, 2, 3}));
    EXPECT_EQ(rows.sizes(), (std::vector<int64_t>{3, 1'000'000'000}));
    EXPECT_EQ(on_host(rows.narrow(1, 0, 2)).sum().item<float>(), 0);
  }
  EXPECT_EQ(ledger.now(activations), before);
}

}  // namespace
}  // namespace dsengine
