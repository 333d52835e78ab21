#include "memory/card_memory.h"

#include "device/cuda.h"

namespace dsengine {

void BlockBook::given(size_t address, size_t bytes) {
  MemoryTag tag = MemoryScope::current();
  // A card's backward runs on a thread of LibTorch's, which has no scope.
  const Phase phase = ledger_.phase();
  if (tag == MemoryTag::other && (phase == Phase::actor || phase == Phase::critic)) tag = MemoryTag::activations;
  const Block block{tag, int64_t(bytes)};
  {
    const std::lock_guard lock(mutex_);
    blocks_[address] = block;
  }
  ledger_.charge(block.tag, block.bytes);
}

void BlockBook::taken_back(size_t address) {
  Block block{};
  {
    const std::lock_guard lock(mutex_);
    const auto found = blocks_.find(address);
    if (found == blocks_.end()) return;
    block = found->second;
    blocks_.erase(found);
  }
  ledger_.release(block.tag, block.bytes);
}

void count_card_memory(Card& card) {
  static BlockBook& book = *new BlockBook(Ledger::card());  // blocks are given back until the process ends
  static const bool watched = [&] {
    card.watch_memory(
        [](bool given, size_t address, size_t bytes) { given ? book.given(address, bytes) : book.taken_back(address); },
        [](size_t bytes) { throw Ledger::card().out_of_memory(bytes); });
    return true;
  }();
  (void)watched;
}

CardLimit::CardLimit(Card* card, int64_t bytes) : card_(card) {
  if (!card_) return;
  Ledger::card().set_limit(bytes);
  card_->limit_memory(bytes);
}
CardLimit::~CardLimit() {
  if (!card_) return;
  Ledger::card().set_limit(0);
  card_->limit_memory(INT64_MAX);
}

Ledger& ledger_of(const Device& device) {
  if (!device.has_values()) return Ledger::meta();
  return device.where().is_cuda() && opened_card() ? Ledger::card() : Ledger::host();
}

}  // namespace dsengine
