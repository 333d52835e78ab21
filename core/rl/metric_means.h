// Weighted means of named numbers over a step.
//
//   MetricMeans means;  means.add("value_loss", 0.5, tokens);
//   means.write_to(json);                          // in the order of first appearance
#pragma once
#include <limits>
#include <string>
#include <utility>
#include <vector>

#include "base/json.h"

namespace dsengine {

// Where a plugin's and the learner's metrics go.
class MetricSink {
 public:
  virtual ~MetricSink() = default;
  virtual void add(const std::string& name, double value, double weight) = 0;
};

class MetricMeans : public MetricSink {
 public:
  void add(const std::string& name, double value, double weight = 1) override {
    for (auto& entry : entries_)
      if (entry.name == name) {
        entry.sum += value * weight, entry.weight += weight;
        return;
      }
    entries_.push_back({name, value * weight, weight});
  }
  // NaN where there is none of that name.
  double mean(const std::string& name) const {
    for (const auto& entry : entries_)
      if (entry.name == name && entry.weight > 0) return entry.sum / entry.weight;
    return std::numeric_limits<double>::quiet_NaN();
  }
  void write_to(Json& json, const std::string& prefix = "") const {
    for (const auto& entry : entries_)
      if (entry.weight > 0) json[prefix + entry.name] = entry.sum / entry.weight;
  }

 private:
  struct Entry {
    std::string name;
    double sum, weight;
  };
  std::vector<Entry> entries_;
};

}  // namespace dsengine
