// Runs a model over sequences whose keys and values are cached: new tokens go behind what a sequence holds.
//
//   Decoder decoder(model);
//   Sequence s = decoder.begin(prompt.size() + 32);               // with room for so many tokens
//   at::Tensor logits_BV = decoder.forward({&s}, {prompt});       // of the last token of each
//   Sequence other = decoder.fork(s, 64);                         // goes on from where s is; what they share is held
//   once decoder.end(s);
//
// Reads the very weights that training writes. One thread.
#pragma once
#include <span>
#include <vector>

#include "generate/kv_cache.h"

namespace dsengine {

struct Sequence {
  std::vector<int64_t> blocks;
  int64_t length = 0;  // tokens that the cache holds of it
};

class Decoder {
 public:
  explicit Decoder(const Model& model) : model_(model), cache_(model) {}

  const Model& model() const { return model_; }
  KvCache& cache() { return cache_; }
  const KvCache& cache() const { return cache_; }

  // There are blocks for it: see fork_blocks.
  Sequence begin(int64_t tokens);
  Sequence fork(const Sequence& from, int64_t tokens);
  void end(Sequence& sequence);
  // Blocks that a fork of a sequence of `length` tokens takes for `tokens` altogether.
  static int64_t fork_blocks(int64_t length, int64_t tokens);

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
