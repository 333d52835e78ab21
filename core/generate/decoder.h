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
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "generate/recorded_step.h"

namespace dsengine {

class Decoder {
 public:
  // record: a step of one token for each sequence is recorded once for each of a few sizes, and then done again. On a
  // card it saves the launches of its kernels; on the host it is only tried so.
  explicit Decoder(const Model& model) : Decoder(model, model.kernels().on_card()) {}
  Decoder(const Model& model, bool record) : model_(model), cache_(model, record), records_(record) {}

  const Model& model() const { return model_; }
  KvCache& cache() { return cache_; }
  const KvCache& cache() const { return cache_; }

  // For so many tokens altogether. The cache has the blocks: blocks_of(tokens), for a fork without the whole ones of
  // `from`.
  Sequence begin(int64_t tokens);
  Sequence fork(const Sequence& from, int64_t tokens);

  // tokens[i]: at least one, and room for them in sequences[i]. [B, V] float32, until the next forward.
  at::Tensor forward(const std::vector<Sequence*>& sequences, const std::vector<std::span<const int32_t>>& tokens);
  // One token of each, [B] int64, on the device: the host need not know them.
  at::Tensor forward(const std::vector<Sequence*>& sequences, const at::Tensor& tokens);
  bool records() const { return records_; }
  // Frees what recorded steps hold; they are recorded anew where they are asked for.
  void forget_recorded();
  // Tokens of prompts, and of answers, that went through the model so far.
  int64_t forwarded() const { return forwarded_; }

 private:
  at::Tensor forward(const std::vector<Sequence*>& sequences, const Batch& batch);
  // Null: not for these.
  RecordedStep* recorded_for(const std::vector<Sequence*>& sequences);

  const Model& model_;
  KvCache cache_;
  const bool records_;
  static constexpr int64_t kWorthRecording = 3;                // steps of a size, of which this is the first recorded
  std::map<int64_t, std::unique_ptr<RecordedStep>> recorded_;  // by their rows
  std::map<int64_t, int64_t> met_;                             // steps of so many rows since the last were forgotten
  int64_t recorded_moves_ = 0;                                 // of the cache, when they were recorded
  int64_t forwarded_ = 0;
};

}  // namespace dsengine
