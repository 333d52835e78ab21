#include "generate/decoder.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace dsengine {

using at::Tensor;

namespace {

class CachedContext : public AttentionContext {
 public:
  CachedContext(KvCache& cache, const Device& device, const Batch& batch, const std::vector<Sequence*>& sequences)
      : cache_(cache), batch_(batch) {
    constexpr int64_t size = KvCache::kBlockSize;
    size_t most = 1;
    for (const auto* s : sequences) most = std::max(most, s->blocks().size());
    std::vector<int64_t> blocks, rows, key_counts;
    for (size_t b = 0; b < sequences.size(); ++b) {
      const auto& own = sequences[b]->blocks();
      blocks.insert(blocks.end(), own.begin(), own.end());
      blocks.insert(blocks.end(), most - own.size(), 0);
      const int64_t begin = batch.past[b], end = begin + batch.offsets[b + 1] - batch.offsets[b];
      key_counts.push_back(end);
      for (int64_t j = begin; j < end; ++j) rows.push_back(own[size_t(j / size)] * size + j % size);
    }
    places_ = {size, device.upload(blocks).view({-1, int64_t(most)}), device.upload(key_counts), device.upload(rows)};
  }

  Tensor attend(const Operator& op, const ops::Attention& attention, const Tensor& q, const Tensor& k,
                const Tensor& v) override {
    Tensor &keys = cache_.keys(op.attention_index), &values = cache_.values(op.attention_index);
    attention.write(k, v, places_, keys, values);
    return attention.cached(q, keys, values, places_, batch_);
  }

 private:
  KvCache& cache_;
  const Batch& batch_;
  ops::CachePlaces places_;
};

}  // namespace

Sequence Decoder::begin(int64_t tokens) { return {cache_, cache_.take(KvCache::blocks_of(tokens)), 0}; }

Sequence Decoder::fork(const Sequence& from, int64_t tokens) {
  const int64_t whole = from.length() / KvCache::kBlockSize;  // blocks that neither will write to
  const auto own = cache_.take(KvCache::blocks_of(tokens) - whole);
  std::vector<int64_t> blocks(from.blocks().begin(), from.blocks().begin() + whole);
  cache_.share(blocks);
  blocks.insert(blocks.end(), own.begin(), own.end());
  if (from.length() % KvCache::kBlockSize > 0) cache_.copy(from.blocks()[size_t(whole)], own[0]);
  return {cache_, std::move(blocks), from.length()};
}

Tensor Decoder::forward(const std::vector<Sequence*>& sequences, const std::vector<std::span<const int32_t>>& tokens) {
  const at::NoGradGuard no_grad;
  std::vector<int64_t> past;
  for (const auto* s : sequences) past.push_back(s->length());
  const Device& device = model_.device();
  const Batch batch = pack(device, tokens, std::move(past));
  CachedContext context(cache_, device, batch, sequences);
  Tensor hidden = model_.hidden(batch, context);
  forwarded_ += batch.offsets.back();
  std::vector<int64_t> last;
  for (size_t i = 0; i < sequences.size(); ++i) {
    sequences[i]->grow(int64_t(tokens[i].size()));
    last.push_back(batch.offsets[i + 1] - 1);
  }
  if (hidden.size(0) != int64_t(last.size())) hidden = hidden.index_select(0, device.upload(last));
  return model_.logits(hidden).to(at::kFloat).contiguous();
}

}  // namespace dsengine
