// A step of generation, one token for each of a number of sequences, recorded once and then done again with other
// tokens: on a card a CUDA graph, on the host the same calls.
//
//   RecordedStep step(model, cache, sequences.size(), 32);        // of sequences of up to 32 blocks
//   at::Tensor logits_BV = step.run(sequences, tokens_B);         // and each holds one token more
//
// It is recorded for as many rows as bucket_of says; those that are nobody's write to the cache's spare block. Valid
// while the model's weights and the cache's arena stay where they are. Borrows both. One thread.
#pragma once
#include <memory>
#include <vector>

#include "device/card.h"
#include "generate/sequence.h"
#include "ops/results.h"

namespace dsengine {

// Keys and values of a batch go to the cache, and are read from it.
class CachedContext : public AttentionContext {
 public:
  CachedContext(KvCache& cache, const Batch& batch, ops::CachePlaces places)
      : cache_(cache), batch_(batch), places_(std::move(places)) {}
  at::Tensor attend(const Operator& op, const ops::Attention& attention, const at::Tensor& q, const at::Tensor& k,
                    const at::Tensor& v) override;
  at::Tensor step(const Operator& op, const ops::CachedStep& step, const at::Tensor& qkv) override;

 private:
  KvCache& cache_;
  const Batch& batch_;
  ops::CachePlaces places_;
};

class RecordedStep {
 public:
  // More take so long that nothing is gained.
  static constexpr int64_t kMostSequences = 256;
  static int64_t bucket_of(int64_t sequences);
  // At least one sequence, of at most so many blocks.
  RecordedStep(const Model& model, KvCache& cache, int64_t sequences, int64_t blocks);
  int64_t blocks() const { return blocks_; }
  // As many sequences as the bucket takes. tokens [B] int64, on the device. [B, V] float32, until the next step.
  at::Tensor run(const std::vector<Sequence*>& sequences, const at::Tensor& tokens);

 private:
  at::Tensor logits() const;

  const Model& model_;
  KvCache& cache_;
  int64_t rows_, blocks_;
  at::Tensor inputs_;  // int64: tokens, positions, lengths, rows of the cache, blocks of each sequence
  Batch batch_;        // views of them
  std::unique_ptr<CachedContext> context_;
  at::Tensor logits_;
  std::unique_ptr<Replay> replay_;
};

}  // namespace dsengine
