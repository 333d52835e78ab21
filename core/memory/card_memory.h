// The book of a graphics card's memory: what LibTorch's allocator there gives out, by the tag of the thread that took
// it.
//
//   count_card_memory(*card);                    // once, before the first tensor there
//   Ledger::card().now(MemoryTag::weights);      // bytes, as they were asked for
//
// What libraries and the context take for themselves is not seen, nor what the allocator rounds up or keeps to give out
// again.
#pragma once
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <unordered_map>

#include "device/card.h"
#include "device/device.h"
#include "memory/ledger.h"

namespace dsengine {

// Blocks by where they begin, each charged until it is given back. Any thread.
class BlockBook {
 public:
  explicit BlockBook(Ledger& ledger) : ledger_(ledger) {}
  void given(size_t address, size_t bytes);
  void taken_back(size_t address);  // of one that it does not know: nothing

 private:
  struct Block {
    MemoryTag tag;
    int64_t bytes;
  };
  Ledger& ledger_;
  std::mutex mutex_;
  std::unordered_map<size_t, Block> blocks_;
};

void count_card_memory(Card& card);

// A card may give out no more than this until the end of the scope; null: nothing is done.
class CardLimit {
 public:
  CardLimit(Card* card, int64_t bytes);
  ~CardLimit();
  CardLimit(const CardLimit&) = delete;
  CardLimit& operator=(const CardLimit&) = delete;

 private:
  Card* card_;
};

// Of what lives on the device; of the host's own, and of tensors without values, theirs.
Ledger& ledger_of(const Device& device);

}  // namespace dsengine
