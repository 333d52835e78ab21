#include "model/sampler.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

namespace dsengine {

namespace {

// log of the sum of exp((z - peak) / temperature), and the peak.
double log_sum(std::span<const float> z, double temperature, float peak) {
  double sum = 0;
  for (const float x : z) sum += std::exp(double(x - peak) / temperature);
  return std::log(sum);
}

// Ids that the filters leave, most probable first (ties: lower id first), of weights that need not sum to 1.
void filter(std::vector<int32_t>& ids, const std::vector<double>& weight, const SamplingOptions& o) {
  const auto better = [&](int32_t a, int32_t b) { return weight[a] != weight[b] ? weight[a] > weight[b] : a < b; };
  if (o.top_k > 0 && o.top_k < int64_t(ids.size())) {
    std::nth_element(ids.begin(), ids.begin() + o.top_k, ids.end(), better);
    ids.resize(size_t(o.top_k));
  }
  std::sort(ids.begin(), ids.end(), better);
  if (o.top_p < 1) {
    double total = 0, sum = 0;
    for (const auto id : ids) total += weight[id];
    size_t keep = 0;
    while (keep < ids.size() && sum < o.top_p * total) sum += weight[ids[keep++]];
    ids.resize(std::max<size_t>(1, keep));
  }
  if (o.min_p > 0) {
    const double floor = o.min_p * weight[ids[0]];
    while (weight[ids.back()] < floor) ids.pop_back();
  }
}

}  // namespace

Sampled sample(std::span<const float> logits, const SamplingOptions& o, double uniform, std::span<const int32_t> seen) {
  const double temperature = o.temperature > 0 ? o.temperature : 1.0;
  const float peak = *std::max_element(logits.begin(), logits.end());
  const double norm = log_sum(logits, temperature, peak);
  const auto chosen = [&](int64_t id) {
    return Sampled{int32_t(id), float(double(logits[size_t(id)] - peak) / temperature - norm)};
  };

  std::vector<float> penalised;
  std::span<const float> z = logits;
  if (o.repetition_penalty != 1) {
    penalised.assign(logits.begin(), logits.end());
    for (const auto id : seen) {
      const float x = logits[size_t(id)];
      penalised[size_t(id)] = float(x > 0 ? x / o.repetition_penalty : x * o.repetition_penalty);
    }
    z = penalised;
  }
  if (o.temperature <= 0) return chosen(std::max_element(z.begin(), z.end()) - z.begin());

  const float top = *std::max_element(z.begin(), z.end());
  std::vector<double> weight(z.size());
  for (size_t i = 0; i < z.size(); ++i) weight[i] = std::exp(double(z[i] - top) / temperature);
  std::vector<int32_t> ids(z.size());
  std::iota(ids.begin(), ids.end(), 0);
  if (o.filters()) filter(ids, weight, o);

  double total = 0;
  for (const auto id : ids) total += weight[id];
  double left = uniform * total;
  for (const auto id : ids) {
    left -= weight[id];
    if (left < 0) return chosen(id);
  }
  return chosen(ids.back());  // rounding: the draw fell past the last token
}

}  // namespace dsengine
