#include "generate/recorded_step.h"

#include <ATen/ATen.h>

#include <algorithm>

#include "base/check.h"
#include "memory/ledger.h"

namespace dsengine {

using at::Tensor;

Tensor CachedContext::attend(const Operator& op, const ops::Attention& attention, const Tensor& q, const Tensor& k,
                             const Tensor& v) {
  Tensor &keys = cache_.keys(op.attention_index), &values = cache_.values(op.attention_index);
  attention.write(k, v, places_, keys, values);
  return attention.cached(q, keys, values, places_, batch_);
}

Tensor CachedContext::step(const Operator& op, const ops::CachedStep& step, const Tensor& qkv) {
  if (batch_.offsets.back() != batch_.sequences()) return {};  // prompts
  return step.forward(qkv, batch_, places_, cache_.keys(op.attention_index), cache_.values(op.attention_index));
}

// Powers of two, and from 64 on half-way between them too.
int64_t RecordedStep::bucket_of(int64_t sequences) {
  int64_t rows = 1;
  while (rows < sequences) rows *= 2;
  return rows > 64 && sequences <= rows / 4 * 3 ? rows / 4 * 3 : rows;
}

RecordedStep::RecordedStep(const Model& model, KvCache& cache, int64_t sequences, int64_t blocks)
    : model_(model), cache_(cache), rows_(bucket_of(sequences)), blocks_((blocks + 7) / 8 * 8) {
  const MemoryScope scope(MemoryTag::workspace);
  inputs_ = model.device().empty({rows_ * (4 + blocks_)}, at::kLong).zero_();
  const auto column = [&](int64_t i) { return inputs_.narrow(0, i * rows_, rows_); };
  batch_.longest = blocks_ * KvCache::kBlockSize;  // of what may come; requests are checked before
  if (const int64_t most = model.graph().max_positions; most > 0) batch_.longest = std::min(batch_.longest, most);
  batch_.past.assign(size_t(rows_), 0);
  for (int64_t b = 0; b <= rows_; ++b) batch_.offsets.push_back(b);
  batch_.tokens = column(0), batch_.positions = column(1), batch_.lengths = column(2);
  batch_.starts = model.device().upload(batch_.offsets);
  context_ = std::make_unique<CachedContext>(
      cache, batch_,
      ops::CachePlaces{KvCache::kBlockSize, inputs_.narrow(0, 4 * rows_, rows_ * blocks_).view({rows_, blocks_}),
                       column(2), column(3)});
}

Tensor RecordedStep::logits() const { return model_.logits(model_.hidden(batch_, *context_)); }

Tensor RecordedStep::run(const std::vector<Sequence*>& sequences, const Tensor& tokens) {
  constexpr int64_t size = KvCache::kBlockSize;
  DSE_CHECK(int64_t(sequences.size()) <= rows_, "{} sequences for {} rows", sequences.size(), rows_);
  const auto place = [&](int64_t column, size_t b) { return size_t(column * rows_) + b; };
  std::vector<int64_t> inputs(size_t(rows_ * (4 + blocks_)), 0);
  for (size_t b = 0; b < size_t(rows_); ++b) {
    int64_t* const blocks = &inputs[size_t(4 * rows_) + b * size_t(blocks_)];
    if (b >= sequences.size()) {  // the first token of a sequence of its own
      inputs[place(2, b)] = 1, inputs[place(3, b)] = cache_.spare_block() * size, blocks[0] = cache_.spare_block();
      continue;
    }
    const auto& own = sequences[b]->blocks();
    const int64_t past = sequences[b]->length();
    inputs[place(1, b)] = past, inputs[place(2, b)] = past + 1;
    inputs[place(3, b)] = own[size_t(past / size)] * size + past % size;
    std::copy(own.begin(), own.end(), blocks);
  }
  inputs_.copy_(model_.device().upload(inputs));
  batch_.tokens.narrow(0, 0, tokens.numel()).copy_(tokens);
  if (!replay_)
    replay_ = model_.device().record([this] {
      const Tensor made = logits();
      if (logits_.defined() && !made.is_cuda())
        logits_.copy_(made);  // the same memory each time, as a graph's
      else
        logits_ = made;
    });
  else
    replay_->run();
  for (auto* sequence : sequences) sequence->grow(1);
  return logits_.narrow(0, 0, int64_t(sequences.size()));
}

}  // namespace dsengine
