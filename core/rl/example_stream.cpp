#include "rl/example_stream.h"

#include <algorithm>
#include <cmath>

#include "base/check.h"

namespace dsengine {

namespace {

constexpr int64_t kMostItems = int64_t(1) << 53;  // of a stage

}  // namespace

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

StepPlan::StepPlan(const ExampleSet& set, uint64_t seed, uint64_t stage_key, int64_t items_per_step,
                   const Length& length)
    : items_per_step_(items_per_step), steps_(length.max_steps) {
  if (length.max_steps > 0) return;
  const auto steps_of = [&](int64_t items) { return (items + items_per_step - 1) / items_per_step; };
  bool alike = true;  // every pass has each record equally often
  for (size_t i = 0; i < set.size(); ++i) alike = alike && set.copies(i) == std::floor(set.copies(i));
  if (alike) {
    epochs_.push_back({0, 0, int64_t(set.epoch_size())});
    const int64_t steps = steps_of(epochs_[0].items);
    DSE_CHECK_USER(length.epochs <= kMostItems / std::max<int64_t>(1, epochs_[0].items),
                   "epochs = {} of {} records each are more than can be counted", length.epochs, epochs_[0].items);
    steps_ = steps * length.epochs;
    return;
  }
  for (int64_t epoch = 0, item = 0; epoch < length.epochs; ++epoch) {
    epochs_.push_back({steps_, item, int64_t(epoch_order(set, seed, stage_key, uint64_t(epoch)).size())});
    steps_ += steps_of(epochs_.back().items), item += epochs_.back().items;
  }
}

StepPlan::Items StepPlan::operator[](int64_t step) const {
  Epoch epoch{0, 0, INT64_MAX};
  if (epochs_.size() == 1) {
    const int64_t items = epochs_[0].items, steps = (items + items_per_step_ - 1) / items_per_step_;
    epoch = {step / steps * steps, step / steps * items, items};
  } else if (!epochs_.empty()) {  // the last that begins at or before the step: those of no step are passed over
    epoch = *std::prev(std::ranges::upper_bound(epochs_, step, {}, &Epoch::first_step));
  }
  const int64_t begin = (step - epoch.first_step) * items_per_step_;
  return {uint64_t(epoch.first_item + begin), std::min(items_per_step_, epoch.items - begin)};
}

Experience experience_of(const std::vector<const Example*>& examples, uint32_t source) {
  Experience e;
  for (size_t i = 0; i < examples.size(); ++i) {
    const auto& x = *examples[i];
    const auto add = [&](const AnswerTokens& answer) {
      ExperienceRow row{x.prompt, int64_t(x.prompt.size()), {}};
      row.tokens.insert(row.tokens.end(), answer.tokens.begin(), answer.tokens.end());
      e.add_row(std::move(row), int64_t(i), Finish::record, x.weight, answer.mask);
    };
    add(x.answer);
    if (source == DSE_SOURCE_PAIRS) add(x.rejected);
  }
  return e;
}

}  // namespace dsengine
