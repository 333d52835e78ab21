// Keys and values of the sequences in flight: one arena for each attention layer, of blocks of tokens. A block is
// counted: sequences that begin alike share those of their beginning.
//
//   KvCache cache(model);
//   cache.reserve(blocks);                       // grows the arena; what it holds stays
//   std::vector<int64_t> own = cache.take(3);
//   cache.share(own), cache.release(own);        // two holders, one left
//   cache.hand_back();                           // the arena's memory, until blocks are reserved again
//
// The arena outlives the sequences. A layer has tensors of its own, so that growing holds one layer twice, not all of
// them. One thread.
#pragma once
#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>
#include <vector>

#include "model/model.h"

namespace dsengine {

class KvCache {
 public:
  static constexpr int64_t kBlockSize = 16;  // tokens
  static int64_t blocks_of(int64_t tokens) { return (tokens + kBlockSize - 1) / kBlockSize; }

  // spare: there is a block beside those that are given, for what nobody reads again.
  explicit KvCache(const Model& model, bool spare = false) : model_(model), spare_(spare) {}

  int64_t blocks() const { return int64_t(holders_.size()); }
  int64_t free_blocks() const { return int64_t(free_.size()); }
  // At least so many blocks altogether.
  void reserve(int64_t blocks);
  // Blocks with one holder each. There are as many free.
  std::vector<int64_t> take(int64_t count);
  void share(std::span<const int64_t> blocks);
  void release(std::span<const int64_t> blocks);
  // Nothing holds a block.
  void hand_back();
  // The keys and values of one block, into another.
  void copy(int64_t from, int64_t to);

  int64_t spare_block() const { return blocks(); }
  // Counts the times at which the arena's memory became another.
  int64_t moves() const { return moves_; }
  // [blocks, and the spare one, kBlockSize, Hk, D]
  at::Tensor& keys(int layer) { return keys_[size_t(layer)]; }
  at::Tensor& values(int layer) { return values_[size_t(layer)]; }

 private:
  const Model& model_;
  const bool spare_;
  int64_t moves_ = 0;
  std::vector<at::Tensor> keys_, values_;
  std::vector<int32_t> holders_;  // of each block
  std::vector<int64_t> free_;
};

}  // namespace dsengine
