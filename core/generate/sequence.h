// What one sequence holds of a cache, which outlives it; what it shares with a fork is held once.
//
//   Sequence s = decoder.begin(64);               // room for 64 tokens
//   s.length();                                   // of them it holds so many
#pragma once
#include <utility>
#include <vector>

#include "generate/kv_cache.h"

namespace dsengine {

class Sequence {
 public:
  Sequence() = default;
  Sequence(KvCache& cache, std::vector<int64_t> blocks, int64_t length)
      : cache_(&cache), blocks_(std::move(blocks)), length_(length) {}
  ~Sequence() {
    if (cache_) cache_->release(blocks_);
  }
  Sequence(Sequence&& other) noexcept
      : cache_(std::exchange(other.cache_, nullptr)), blocks_(std::move(other.blocks_)), length_(other.length_) {}
  Sequence& operator=(Sequence&& other) noexcept {
    std::swap(cache_, other.cache_), std::swap(blocks_, other.blocks_), std::swap(length_, other.length_);
    return *this;
  }

  const std::vector<int64_t>& blocks() const { return blocks_; }
  int64_t length() const { return length_; }  // tokens that the cache holds of it
  void grow(int64_t tokens) { length_ += tokens; }

 private:
  KvCache* cache_ = nullptr;
  std::vector<int64_t> blocks_;
  int64_t length_ = 0;
};

}  // namespace dsengine
