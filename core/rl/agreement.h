// What ranks that each computed some rows of a minibatch must tell each other: metrics and columns.
//
//   MetricParts own;  …; own.add("value_loss", 0.5, tokens);        // of this rank's micro-batches
//   agree_metrics(own, ranks, means);                                // of all ranks', on each of them
//   gather_rows(ranks, experience.offsets, rows_of_ranks, {&experience.old_logp});
//   gather_answers(ranks, rows_of_ranks, answers);                   // each rank has filled its own
//
// On one rank both leave every bit as it was.
#pragma once
#include <span>
#include <string>
#include <vector>

#include "comm/communicator.h"
#include "generate/request.h"
#include "rl/metric_means.h"

namespace dsengine {

// What was added, as it came: the ranks' are added up in the order of ranks, one by one.
class MetricParts : public MetricSink {
 public:
  void add(const std::string& name, double value, double weight = 1) override {
    parts_.push_back({name, value, weight});
  }
  void add_to(MetricSink& sink) const;
  std::string bytes() const;
  static MetricParts of_bytes(const std::string& bytes);

 private:
  struct Part {
    std::string name;
    double value, weight;
  };
  std::vector<Part> parts_;
};

void agree_metrics(const MetricParts& own, Communicator& ranks, MetricSink& means);

// Columns are [T], with rows at `offsets`; one without entries is left out.

// The entries of some rows, one row after the other, and back to where they stand.
std::vector<float> entries_of(const std::vector<int64_t>& offsets, const std::vector<int64_t>& rows,
                              const std::vector<float>& column);
void put_entries(const std::vector<int64_t>& offsets, const std::vector<int64_t>& rows, std::span<const float> entries,
                 std::vector<float>& column);

// rows[r] are those that rank r has filled. Afterwards all are filled on all ranks.
void gather_rows(Communicator& ranks, const std::vector<int64_t>& offsets,
                 const std::vector<std::vector<int64_t>>& rows, const std::vector<std::vector<float>*>& columns);

// The same of answers, one a row.
void gather_answers(Communicator& ranks, const std::vector<std::vector<int64_t>>& rows,
                    std::vector<Generation>& answers);

}  // namespace dsengine
