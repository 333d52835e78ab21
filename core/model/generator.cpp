#include "model/generator.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "base/check.h"
#include "base/philox.h"

namespace dsengine {

using at::Tensor;

// Keys and values of the sequences in flight: one arena per attention layer, cut into equal slots.
class KvCache {
 public:
  KvCache(const Model& model, int64_t slots, int64_t capacity) : capacity_(capacity) {
    for (const auto* op : model.graph().attentions())
      for (auto* to : {&keys_, &values_})
        to->push_back(model.device().empty({slots, capacity, op->kv_heads, op->head_dim}, model.dtype()));
  }
  int64_t capacity() const { return capacity_; }
  Tensor& keys(int layer) { return keys_[size_t(layer)]; }
  Tensor& values(int layer) { return values_[size_t(layer)]; }

 private:
  int64_t capacity_;
  std::vector<Tensor> keys_, values_;
};

namespace {

// New tokens of some sequences, each after what its slot already holds: prompts (prefill) or single tokens
// (decode).
class CachedContext : public AttentionContext {
 public:
  CachedContext(KvCache& cache, const Device& device, const Batch& batch, const std::vector<int64_t>& slots)
      : cache_(cache), batch_(batch) {
    std::vector<int64_t> rows, key_counts;
    for (size_t b = 0; b < slots.size(); ++b) {
      const int64_t count = batch.offsets[b + 1] - batch.offsets[b], begin = slots[b] * cache.capacity();
      key_counts.push_back(batch.past[b] + count);
      for (int64_t i = 0; i < count; ++i) rows.push_back(begin + batch.past[b] + i);
    }
    places_ = {cache.capacity(), device.upload(slots).view({-1, 1}), device.upload(key_counts), device.upload(rows)};
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
  ops::CachePlaces places_;  // a slot is a block
};

struct Active {
  size_t request;
  int64_t slot;
  int64_t length;  // tokens in the cache
};

// One call of Generator::run.
class Run {
 public:
  Run(const Model& model, const std::vector<GenerationRequest>& requests, const GenerationOptions& options,
      KvCache& cache, int64_t slots, uint64_t seed, uint64_t step)
      : model_(model),
        requests_(requests),
        options_(options),
        cache_(cache),
        seed_(seed),
        step_(step),
        answers_(requests.size()) {
    for (int64_t s = slots; s-- > 0;) free_.push_back(s);
    for (size_t i = 0; i < requests.size(); ++i) waiting_.push_back(i);
  }

  std::vector<Generation> finish(int64_t prefill_tokens) {
    while (!waiting_.empty() || !active_.empty()) {
      admit(prefill_tokens);
      if (!active_.empty()) decode();
      if (options_.on_step) options_.on_step(finished_);
    }
    return std::move(answers_);
  }

 private:
  // Enters waiting prompts while slots are free: one ragged forward over their tokens.
  void admit(int64_t prefill_tokens) {
    std::vector<Active> entered;
    std::vector<std::span<const int32_t>> prompts;
    int64_t tokens = 0;
    while (!waiting_.empty() && !free_.empty()) {
      const auto& prompt = requests_[waiting_.front()].prompt;
      if (!entered.empty() && tokens + int64_t(prompt.size()) > prefill_tokens) break;
      tokens += int64_t(prompt.size());
      prompts.emplace_back(prompt);
      entered.push_back({waiting_.front(), free_.back(), int64_t(prompt.size())});
      waiting_.pop_front(), free_.pop_back();
    }
    if (entered.empty()) return;
    const Device& device = model_.device();
    const Batch batch = pack(device, prompts);
    std::vector<int64_t> slots, last;
    for (size_t i = 0; i < entered.size(); ++i)
      slots.push_back(entered[i].slot), last.push_back(batch.offsets[i + 1] - 1);
    CachedContext context(cache_, device, batch, slots);
    const Tensor hidden = model_.hidden(batch, context);
    take(std::move(entered), hidden.index_select(0, device.upload(last)));
  }

  // One token for every active sequence.
  void decode() {
    std::vector<std::span<const int32_t>> tokens;
    std::vector<int64_t> slots, past;
    for (const auto& a : active_) {
      tokens.push_back(std::span(answers_[a.request].tokens).last(1));
      slots.push_back(a.slot), past.push_back(a.length);
    }
    const Batch batch = pack(model_.device(), tokens, past);
    CachedContext context(cache_, model_.device(), batch, slots);
    const Tensor hidden = model_.hidden(batch, context);
    for (auto& a : active_) ++a.length;
    take(std::exchange(active_, {}), hidden);
  }

  // Samples the next token of each row; rows that end free their slot, the others become active.
  void take(std::vector<Active> rows, const Tensor& hidden) {
    const Tensor logits = model_.logits(hidden).to(at::kFloat).contiguous();
    const int64_t vocabulary = logits.size(1);
    const float* z = logits.const_data_ptr<float>();
    std::vector<Sampled> next(rows.size());
    at::parallel_for(0, int64_t(rows.size()), 1, [&](int64_t first, int64_t last) {
      std::vector<int32_t> seen;
      for (int64_t i = first; i < last; ++i) {
        const auto& request = requests_[rows[size_t(i)].request];
        const auto& answer = answers_[rows[size_t(i)].request];
        if (options_.sampling.repetition_penalty != 1) {
          seen = request.prompt;
          seen.insert(seen.end(), answer.tokens.begin(), answer.tokens.end());
        }
        const Philox draws(seed_, Purpose::sample, step_, request.row);
        next[size_t(i)] = sample({z + i * vocabulary, size_t(vocabulary)}, options_.sampling,
                                 draws.uniform(answer.tokens.size()), seen);
      }
    });
    for (size_t i = 0; i < rows.size(); ++i) {
      auto& answer = answers_[rows[i].request];
      answer.tokens.push_back(next[i].token);
      answer.logp.push_back(next[i].logp);
      if (ended(rows[i].request, answer)) {
        free_.push_back(rows[i].slot);
        ++finished_;
      } else {
        active_.push_back(rows[i]);
      }
    }
  }

  bool ended(size_t request, Generation& answer) {
    const bool stop = options_.on_token && options_.on_token(request, answer.tokens);
    const bool eos = std::count(options_.eos.begin(), options_.eos.end(), answer.tokens.back()) > 0;
    answer.finish = eos ? Finish::eos : stop ? Finish::stop : Finish::length;
    return eos || stop || int64_t(answer.tokens.size()) >= requests_[request].max_new_tokens;
  }

  const Model& model_;
  const std::vector<GenerationRequest>& requests_;
  const GenerationOptions& options_;
  KvCache& cache_;
  uint64_t seed_, step_;
  std::vector<Generation> answers_;
  std::vector<int64_t> free_;
  std::deque<size_t> waiting_;
  std::vector<Active> active_;
  size_t finished_ = 0;
};

}  // namespace

Generator::Generator(const Model& model, Limits limits) : model_(model), limits_(limits) {}

void check_request(const Model& model, std::span<const int32_t> prompt, int64_t max_new_tokens) {
  const ModelGraph& graph = model.graph();
  DSE_CHECK_USER(!prompt.empty(), "an empty prompt: give at least one token");
  DSE_CHECK_USER(max_new_tokens > 0, "max_new_tokens must be at least 1, is {}", max_new_tokens);
  DSE_CHECK_USER(max_new_tokens <= INT32_MAX, "max_new_tokens must be at most {}, is {}", INT32_MAX, max_new_tokens);
  const int64_t length = int64_t(prompt.size()) + max_new_tokens;
  DSE_CHECK_USER(graph.max_positions == 0 || length <= graph.max_positions,
                 "{} prompt tokens and {} new ones exceed the model's {} positions", prompt.size(), max_new_tokens,
                 graph.max_positions);
  DSE_CHECK_USER(
      graph.long_after == 0 || length <= graph.long_after || int64_t(prompt.size()) > graph.long_after,
      "{} prompt tokens and {} new ones cross the length of {} beyond which this model's positions turn otherwise, so "
      "that what was computed does not hold: keep both within it, or begin beyond it",
      prompt.size(), max_new_tokens, graph.long_after);
  for (const auto id : prompt)
    DSE_CHECK_USER(id >= 0 && id < graph.vocabulary, "token id {} is outside the vocabulary of {}", id,
                   graph.vocabulary);
}

std::vector<Generation> Generator::run(const std::vector<GenerationRequest>& requests, const GenerationOptions& options,
                                       uint64_t seed, uint64_t step) const {
  at::NoGradGuard no_grad;
  int64_t capacity = 0;
  for (const auto& r : requests) {
    check_request(model_, r.prompt, r.max_new_tokens);
    capacity = std::max(capacity, int64_t(r.prompt.size()) + r.max_new_tokens);
  }
  const int64_t slots = std::min<int64_t>(limits_.slots, int64_t(requests.size()));
  KvCache cache(model_, slots, capacity);
  return Run(model_, requests, options, cache, slots, seed, step).finish(limits_.prefill_tokens);
}

}  // namespace dsengine
