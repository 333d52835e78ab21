// Runs a model over sequences whose keys and values are cached: new tokens go behind what a sequence holds.
//
//   Decoder decoder(model);
//   decoder.cache().reserve(8);                                   // before sequences take of it
//   Sequence s = decoder.begin(prompt.size() + 32);               // with room for so many tokens
//   at::Tensor logits_BV = decoder.forward({&s}, {prompt});       // of the last token of each
//   Sequence other = decoder.fork(s, 64);                         // goes on from where s is
//
// Reads the very weights that training writes. One thread.
#pragma once
#include <span>
#include <utility>
#include <vector>

#include "generate/kv_cache.h"

namespace dsengine {

// What one sequence holds of a cache, which outlives it; what it shares with a fork is held once.
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

class Decoder {
 public:
  explicit Decoder(const Model& model) : model_(model), cache_(model) {}

  const Model& model() const { return model_; }
  KvCache& cache() { return cache_; }
  const KvCache& cache() const { return cache_; }

  // For so many tokens altogether. The cache has the blocks: blocks_of(tokens), for a fork without the whole ones of
  // `from`.
  Sequence begin(int64_t tokens);
  Sequence fork(const Sequence& from, int64_t tokens);

  // tokens[i]: at least one, and room for them in sequences[i]. [B, V] float32.
  at::Tensor forward(const std::vector<Sequence*>& sequences, const std::vector<std::span<const int32_t>>& tokens);
  // Tokens of prompts, and of answers, that went through the model so far.
  int64_t forwarded() const { return forwarded_; }

 private:
  const Model& model_;
  KvCache cache_;
  int64_t forwarded_ = 0;
};

}  // namespace dsengine
