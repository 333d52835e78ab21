#include "generate/kv_cache.h"

#include <ATen/ATen.h>

#include "base/check.h"
#include "memory/ledger.h"

namespace dsengine {

void KvCache::reserve(int64_t blocks) {
  if (blocks <= this->blocks()) return;
  if (free_blocks() == this->blocks()) hand_back();  // nothing of it to keep beside what is larger
  const int64_t before = this->blocks();
  const MemoryScope scope(MemoryTag::kv_cache);
  const auto layers = model_.graph().attentions();
  keys_.resize(layers.size()), values_.resize(layers.size());
  for (size_t i = 0; i < layers.size(); ++i)
    for (auto* arena : {&keys_[i], &values_[i]}) {
      at::Tensor larger = model_.device().empty({blocks + spare_, kBlockSize, layers[i]->kv_heads, layers[i]->head_dim},
                                                model_.dtype());
      if (before > 0) larger.narrow(0, 0, before).copy_(arena->narrow(0, 0, before));
      *arena = std::move(larger);
    }
  ++moves_;
  holders_.resize(size_t(blocks), 0);
  for (int64_t b = blocks; b-- > before;) free_.push_back(b);
}

std::vector<int64_t> KvCache::take(int64_t count) {
  DSE_CHECK(count <= free_blocks(), "{} blocks of {}", count, free_blocks());
  std::vector<int64_t> taken(free_.end() - count, free_.end());
  free_.resize(free_.size() - size_t(count));
  share(taken);
  return taken;
}

void KvCache::share(std::span<const int64_t> blocks) {
  for (const auto b : blocks) ++holders_[size_t(b)];
}

void KvCache::release(std::span<const int64_t> blocks) {
  for (const auto b : blocks)
    if (--holders_[size_t(b)] == 0) free_.push_back(b);
}

void KvCache::hand_back() {
  DSE_CHECK(free_blocks() == blocks(), "{} of {} blocks are free", free_blocks(), blocks());
  keys_.clear(), values_.clear(), holders_.clear(), free_.clear();
  ++moves_;
}

void KvCache::copy(int64_t from, int64_t to) {
  for (auto* arenas : {&keys_, &values_})
    for (auto& arena : *arenas) arena.select(0, to).copy_(arena.select(0, from));
}

}  // namespace dsengine
