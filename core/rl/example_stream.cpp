#include "rl/example_stream.h"

#include "base/check.h"

namespace dsengine {

ExampleStream::ExampleStream(const ExampleSet& set, uint64_t seed, uint64_t stage_key)
    : set_(set), seed_(seed), key_(stage_key), order_(epoch_order(set, seed, stage_key, 0)) {
  DSE_CHECK_USER(!order_.empty(), "an epoch without records: look at data.sources and their weights");
}

const Example& ExampleStream::operator[](uint64_t n) {
  if (n < begin_) epoch_ = begin_ = 0, order_ = epoch_order(set_, seed_, key_, 0);
  while (n >= begin_ + order_.size()) {
    begin_ += order_.size();
    order_ = epoch_order(set_, seed_, key_, ++epoch_);
  }
  return set_[order_[n - begin_]];
}

Experience experience_of(const std::vector<const Example*>& examples, uint32_t source) {
  Experience e;
  for (size_t i = 0; i < examples.size(); ++i) {
    const auto& x = *examples[i];
    const auto add = [&](const AnswerTokens& answer) {
      ExperienceRow row{x.prompt, int64_t(x.prompt.size()), {}, x.prompt_text, x.metadata};
      row.tokens.insert(row.tokens.end(), answer.tokens.begin(), answer.tokens.end());
      e.add_row(std::move(row), int64_t(i), DSE_FINISH_RECORD, x.weight, answer.mask);
    };
    add(x.answer);
    if (source == DSE_SOURCE_PAIRS) add(x.rejected);
  }
  return e;
}

}  // namespace dsengine
