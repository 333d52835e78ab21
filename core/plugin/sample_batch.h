// A made-up ragged batch of the columns an algorithm asks for, to try the algorithm without a model.
//
//   SampleBatch batch(algorithm.needs(), 7);  // seed
//   algorithm.prepare(batch.view());
//   LossResult result = loss_of(algorithm, batch.rows(0, 2));
//
// 4 to 8 rows (whole groups or pairs) of 1 to 12 tokens, some masked; log-probabilities in (-4, 0), entropies
// in (0, 3), values and scores in (-2, 2); old columns lie near the current ones, as after a few updates.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "plugin/instance.h"

namespace dsengine {

class SampleBatch {
 public:
  SampleBatch(const dse_needs& needs, uint64_t seed);

  // Rows [first, last) with what prepare wrote.
  SampleBatch rows(int64_t first, int64_t last) const;
  dse_batch view();  // valid until this batch changes or moves
  int64_t row_count() const { return static_cast<int64_t>(offsets_.size()) - 1; }
  int64_t token_count() const { return offsets_.back(); }
  const dse_needs& needs() const { return needs_; }
  const std::vector<float>& mask() const { return mask_; }
  // The column of DSE_COLUMN_LOGP, DSE_COLUMN_ENTROPY or DSE_COLUMN_VALUE.
  std::vector<float>& column(uint32_t which);
  // "" or what was wrong with a metric the algorithm reported.
  const std::string& metric_fault() const { return metric_fault_; }

 private:
  dse_needs needs_;
  int64_t group_size_ = 1;  // rows of one prompt: a pair, a group or one row
  std::vector<int64_t> offsets_{0}, prompt_;
  std::vector<int32_t> finish_, token_;
  std::vector<float> score_, row_weight_, mask_, logp_, entropy_, value_, old_logp_, old_value_, ref_logp_,
      rollout_logp_, advantage_, target_;
  std::vector<std::vector<float>> own_;
  std::vector<float*> own_pointers_;
  std::string metric_fault_;
};

struct LossResult {
  std::vector<double> loss;                       // by unit
  std::vector<float> d_logp, d_entropy, d_value;  // [tokens], empty where not asked for
  bool operator==(const LossResult&) const = default;
  std::vector<float>& by(uint32_t column);
};

LossResult loss_of(AlgorithmInstance& algorithm, SampleBatch batch);

}  // namespace dsengine
