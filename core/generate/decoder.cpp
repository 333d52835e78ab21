#include "generate/decoder.h"

#include <ATen/ATen.h>

#include <algorithm>

namespace dsengine {

using at::Tensor;

namespace {

// Of each sequence's tokens of the batch: where its keys lie.
ops::CachePlaces places_of(const Device& device, const Batch& batch, const std::vector<Sequence*>& sequences) {
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
  return {size, device.upload(blocks).view({-1, int64_t(most)}), device.upload(key_counts), device.upload(rows)};
}

std::vector<int64_t> lengths_of(const std::vector<Sequence*>& sequences) {
  std::vector<int64_t> lengths;
  for (const auto* s : sequences) lengths.push_back(s->length());
  return lengths;
}

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
  if (records_ && std::ranges::all_of(tokens, [](const auto& t) { return t.size() == 1; })) {
    std::vector<int64_t> ids;
    for (const auto& t : tokens) ids.push_back(t[0]);
    return forward(sequences, model_.device().upload(ids));
  }
  return forward(sequences, pack(model_.device(), tokens, lengths_of(sequences)));
}

Tensor Decoder::forward(const std::vector<Sequence*>& sequences, const Tensor& tokens) {
  const at::NoGradGuard no_grad;
  if (RecordedStep* const step = records_ ? recorded_for(sequences) : nullptr) {
    forwarded_ += int64_t(sequences.size());
    return step->run(sequences, tokens);
  }
  const int32_t any = 0;
  Batch batch = pack(model_.device(), std::vector(sequences.size(), std::span(&any, 1)), lengths_of(sequences));
  batch.tokens = tokens;
  return forward(sequences, batch);
}

Tensor Decoder::forward(const std::vector<Sequence*>& sequences, const Batch& batch) {
  const at::NoGradGuard no_grad;
  const Device& device = model_.device();
  CachedContext context(cache_, batch, places_of(device, batch, sequences));
  Tensor hidden = model_.hidden(batch, context);
  forwarded_ += batch.offsets.back();
  std::vector<int64_t> last;
  for (size_t i = 0; i < sequences.size(); ++i) {
    sequences[i]->grow(batch.offsets[i + 1] - batch.offsets[i]);
    last.push_back(batch.offsets[i + 1] - 1);
  }
  if (hidden.size(0) != int64_t(last.size())) hidden = hidden.index_select(0, device.upload(last));
  return model_.logits(hidden).to(at::kFloat).contiguous();
}

RecordedStep* Decoder::recorded_for(const std::vector<Sequence*>& sequences) {
  if (sequences.empty() || int64_t(sequences.size()) > RecordedStep::kMostSequences || !model_.recordable())
    return nullptr;
  size_t blocks = 1;
  for (const auto* s : sequences) blocks = std::max(blocks, s->blocks().size());
  if (recorded_moves_ != cache_.moves()) forget_recorded(), recorded_moves_ = cache_.moves();
  const int64_t rows = RecordedStep::bucket_of(int64_t(sequences.size()));
  if (++met_[rows] < kWorthRecording) return nullptr;
  auto& step = recorded_[rows];
  if (!step || step->blocks() < int64_t(blocks)) {
    step.reset();  // before there is another
    step = std::make_unique<RecordedStep>(model_, cache_, int64_t(sequences.size()), int64_t(blocks));
  }
  return step.get();
}

void Decoder::forget_recorded() { recorded_.clear(), met_.clear(); }

}  // namespace dsengine
