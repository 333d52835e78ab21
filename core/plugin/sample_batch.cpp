#include "plugin/sample_batch.h"

#include <cmath>
#include <random>

#include "base/check.h"

namespace dsengine {
namespace {

void record_metric(void* context, const char* name, double value, double weight) {
  auto& fault = *static_cast<std::string*>(context);
  if (!name || !*name)
    fault = "a metric has no name";
  else if (!std::isfinite(value) || !std::isfinite(weight) || weight < 0)
    fault = fmt::format("metric '{}' is {} with weight {}", name, value, weight);
}

// One rank: its sum is its own.
dse_status keep_sum(void*, double*, int64_t) { return DSE_OK; }

template <class T>
std::vector<T> slice(const std::vector<T>& all, int64_t first, int64_t last) {
  return {all.begin() + first, all.begin() + last};
}

}  // namespace

SampleBatch::SampleBatch(const dse_needs& needs, uint64_t seed) : needs_(needs) {
  std::mt19937_64 engine(seed);
  const auto uniform = [&](double low, double high) {
    return low + (high - low) * static_cast<double>(engine() >> 11) * 0x1p-53;
  };
  const auto integer = [&](int64_t low, int64_t high) {  // inclusive
    return low + static_cast<int64_t>(engine() % static_cast<uint64_t>(high - low + 1));
  };
  const bool rollout = needs.source == DSE_SOURCE_ROLLOUT;
  group_size_ = needs.source == DSE_SOURCE_PAIRS ? 2 : rollout ? needs.group_size : 1;
  const int64_t wanted = integer(4, 8);
  const int64_t groups = std::max<int64_t>(2, wanted / group_size_);
  own_.resize(needs.own_columns);
  for (int64_t row = 0; row < groups * group_size_; ++row) {
    const int64_t length = integer(1, 12);
    offsets_.push_back(offsets_.back() + length);
    prompt_.push_back(row / group_size_);
    finish_.push_back(rollout ? static_cast<int32_t>(integer(DSE_FINISH_EOS, DSE_FINISH_STOP))
                              : int32_t{DSE_FINISH_RECORD});
    score_.push_back(static_cast<float>(uniform(-2, 2)));
    row_weight_.push_back(row % group_size_ == 0 || rollout ? static_cast<float>(uniform(0.5, 1.5))
                                                            : row_weight_.back());
    for (int64_t t = 0; t < length; ++t) {
      token_.push_back(static_cast<int32_t>(integer(0, 999)));
      mask_.push_back(t + 1 == length || uniform(0, 1) < 0.85 ? 1.0f : 0.0f);
      logp_.push_back(static_cast<float>(uniform(-4, -0.05)));
      entropy_.push_back(static_cast<float>(uniform(0.05, 3)));
      value_.push_back(static_cast<float>(uniform(-2, 2)));
      old_logp_.push_back(logp_.back() + static_cast<float>(uniform(-0.3, 0.3)));
      old_value_.push_back(value_.back() + static_cast<float>(uniform(-0.3, 0.3)));
      ref_logp_.push_back(logp_.back() + static_cast<float>(uniform(-0.5, 0.5)));
      rollout_logp_.push_back(old_logp_.back() + static_cast<float>(uniform(-0.1, 0.1)));
      advantage_.push_back(0), target_.push_back(0);
      for (auto& column : own_) column.push_back(0);
    }
  }
}

SampleBatch SampleBatch::rows(int64_t first, int64_t last) const {
  SampleBatch part = *this;
  const int64_t begin = offsets_[first], end = offsets_[last];
  part.offsets_ = slice(offsets_, first, last + 1);
  for (auto& offset : part.offsets_) offset -= begin;
  part.prompt_ = slice(prompt_, first, last);
  part.finish_ = slice(finish_, first, last);
  part.token_ = slice(token_, begin, end);
  for (auto* column : {&part.score_, &part.row_weight_}) *column = slice(*column, first, last);
  for (auto* column : {&part.mask_, &part.logp_, &part.entropy_, &part.value_, &part.old_logp_, &part.old_value_,
                       &part.ref_logp_, &part.rollout_logp_, &part.advantage_, &part.target_})
    *column = slice(*column, begin, end);
  for (auto& column : part.own_) column = slice(column, begin, end);
  return part;
}

dse_batch SampleBatch::view() {
  const auto asked = [&](uint32_t column, std::vector<float>& values) {
    return needs_.columns & column ? values.data() : nullptr;
  };
  own_pointers_.clear();
  for (auto& column : own_) own_pointers_.push_back(column.data());
  dse_batch batch{};
  batch.struct_size = sizeof batch;
  batch.own_column_count = needs_.own_columns;
  batch.rows = row_count();
  batch.tokens = token_count();
  batch.offsets = offsets_.data();
  batch.prompt = prompt_.data();
  batch.finish = finish_.data();
  batch.score = asked(DSE_COLUMN_SCORE, score_);
  batch.row_weight = row_weight_.data();
  batch.token = token_.data();
  batch.mask = mask_.data();
  batch.logp = asked(DSE_COLUMN_LOGP, logp_);
  batch.entropy = asked(DSE_COLUMN_ENTROPY, entropy_);
  batch.value = asked(DSE_COLUMN_VALUE, value_);
  batch.old_logp = asked(DSE_COLUMN_OLD_LOGP, old_logp_);
  batch.old_value = asked(DSE_COLUMN_OLD_VALUE, old_value_);
  batch.ref_logp = asked(DSE_COLUMN_REF_LOGP, ref_logp_);
  batch.rollout_logp = asked(DSE_COLUMN_ROLLOUT_LOGP, rollout_logp_);
  batch.advantage = advantage_.data();
  batch.target = target_.data();
  batch.own = own_pointers_.data();
  batch.context = &metric_fault_;
  batch.metric = record_metric;
  batch.all_reduce_sum = keep_sum;
  return batch;
}

std::vector<float>& SampleBatch::column(uint32_t which) {
  return which == DSE_COLUMN_LOGP ? logp_ : which == DSE_COLUMN_ENTROPY ? entropy_ : value_;
}

std::vector<float>& LossResult::by(uint32_t column) {
  return column == DSE_COLUMN_LOGP ? d_logp : column == DSE_COLUMN_ENTROPY ? d_entropy : d_value;
}

LossResult loss_of(AlgorithmInstance& algorithm, SampleBatch batch) {
  const dse_needs& needs = algorithm.needs();
  const auto tokens = static_cast<size_t>(batch.token_count());
  LossResult result;
  result.loss.resize(static_cast<size_t>(unit_count(needs, batch.row_count(), batch.token_count())));
  const auto gradient = [&](uint32_t column) -> float* {
    if (!(needs.columns & column)) return nullptr;
    result.by(column).resize(tokens);
    return result.by(column).data();
  };
  dse_gradients gradients{
      sizeof gradients,          0, result.loss.data(), gradient(DSE_COLUMN_LOGP), gradient(DSE_COLUMN_ENTROPY),
      gradient(DSE_COLUMN_VALUE)};
  algorithm.loss(batch.view(), gradients);
  DSE_CHECK_USER(batch.metric_fault().empty(), "{}; give it a finite value and a weight of at least 0",
                 batch.metric_fault());
  return result;
}

}  // namespace dsengine
