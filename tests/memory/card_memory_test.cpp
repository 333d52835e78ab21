#include "memory/card_memory.h"

#include <gtest/gtest.h>

#include <thread>

namespace dsengine {
namespace {

TEST(BlockBook, ABlockIsChargedToTheTagOfWhoTookIt) {
  Ledger ledger;
  BlockBook book(ledger);
  {
    const MemoryScope scope(MemoryTag::weights);
    book.given(512, 100);
    book.given(1024, 50);
  }
  book.given(2048, 7);
  EXPECT_EQ(ledger.now(MemoryTag::weights), 150);
  EXPECT_EQ(ledger.now(MemoryTag::other), 7);
  std::thread([&] { book.taken_back(512); }).join();
  EXPECT_EQ(ledger.now(MemoryTag::weights), 50);
  book.taken_back(512);   // twice
  book.taken_back(4096);  // from before there was a book
  EXPECT_EQ(ledger.now(), 57);
  {
    const MemoryScope scope(MemoryTag::moments);
    book.given(512, 30);  // the same place, for something else
  }
  book.taken_back(512);
  EXPECT_EQ(ledger.now(), 57);
  EXPECT_EQ(ledger.peak(MemoryTag::moments), 30);
}

TEST(CardMemory, ADeviceHasTheBookOfItsOwnMemory) {
  EXPECT_EQ(&ledger_of(Device::host()), &Ledger::host());
  EXPECT_EQ(&ledger_of(Device::meta()), &Ledger::meta());
}

}  // namespace
}  // namespace dsengine
